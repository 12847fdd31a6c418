"""Config of a small run with all parts: three feature maps, GroupNorm, a moving average, and generated images."""

import dataclasses

from ssd_jax.config import Augment, Config, Data, DefaultBoxes, Extra, Loss, Match, Model, Optimizer, Shapes, Train
from ssd_jax.data.formats.shapes import CLASS_NAMES


def get_config() -> Config:
    boxes = DefaultBoxes(
        image_size=64,
        feature_maps=(8, 4, 2),
        min_sizes=(8, 20, 36),
        max_sizes=(20, 36, 60),
        aspect_ratios=((2,), (2,), (2,)),
        steps=None,
    )
    return Config(
        name="tiny",
        model=Model(default_boxes=boxes, extras=(Extra(64, 128),), width=0.125, norm="group"),
        data=Data(
            max_image_size=64, max_objects=8, shapes=Shapes(train_images=24, val_images=6, test_images=6, image_size=64)
        ),
        augment=Augment(crop_trials=5),
        optimizer=Optimizer(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=4, clip_norm=10.0),
        train=Train(steps=30, batch_size=4, log_every=1, eval_every=14, checkpoint_every=7, ema_decay=0.9),
    )


def get_step_config() -> Config:
    """Return a config for tests of the training step.

    Variances, matching and loss options differ from the defaults, so that a test fails if an option is ignored.
    """
    config = get_config()
    boxes = dataclasses.replace(config.model.default_boxes, variances=(0.11, 0.12, 0.23, 0.24))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, class_names=CLASS_NAMES, default_boxes=boxes),
        match=Match(iou_threshold=0.4),
        loss=Loss(neg_pos_ratio=2.0, min_negatives=30, location_weight=0.7),
        train=dataclasses.replace(config.train, batch_size=8),
    )
