"""A small SSD on generated pictures: the demo, trained from scratch on a CPU in minutes.

python train.py configs/shapes.py
"""

from ssd_jax.config import Augment, Config, Data, DefaultBoxes, Extra, Model, Optimizer, Train


def get_config() -> Config:
    boxes = DefaultBoxes(
        image_size=128,
        feature_maps=(16, 8, 4, 2, 1),
        min_sizes=(10, 24, 46, 72, 98),
        max_sizes=(24, 46, 72, 98, 124),
        aspect_ratios=((2,), (2,), (2,), (2,), (2,)),
        steps=None,
    )
    return Config(
        name="shapes",
        model=Model(
            default_boxes=boxes,
            extras=(Extra(256, 512), Extra(128, 256), Extra(128, 256)),
            width=0.25,
            norm="group",
            std=(64, 64, 64),
        ),
        data=Data(root="shapes", canvas=128, max_objects=16),
        # Small objects vanish in a 128 px picture that is zoomed out four times.
        augment=Augment(expand_probability=0.25, expand_max_ratio=2.0),
        optimizer=Optimizer(
            name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=100, weight_decay=0.02, clip_norm=10.0
        ),
        train=Train(steps=2000, batch_size=16, eval_every=500, checkpoint_every=250, ema_decay=0.998),
    )
