"""A small SSD for generated images. `ssd-jax demo` trains it from scratch on a CPU in minutes.

ssd-jax train shapes

The network has three sixteenths of the paper's channels. The batches are small because many steps matter more than
exact gradients in a training as short as this.
"""

from ssd_jax.config import Augment, Config, Data, DefaultBoxes, Extra, Model, Optimizer, Train

ABOUT = {"data": "generated", "source": "ssd-jax"}


def get_config() -> Config:
    boxes = DefaultBoxes(
        image_size=128,
        feature_maps=(16, 8, 8, 8, 4),
        min_sizes=(18, 30, 46, 66, 90),
        max_sizes=(30, 46, 66, 90, 114),
        aspect_ratios=((2,), (2,), (2,), (2,), (2,)),
        steps=None,
    )
    return Config(
        name="shapes",
        model=Model(
            default_boxes=boxes,
            # The stride is 1 where SSD300 has 2, so that an object is matched to several default boxes, as in
            # SSD300 on larger images.
            extras=(Extra(256, 512, stride=1), Extra(128, 256, stride=1), Extra(128, 256)),
            l2_norm_scale=5.0,
            width=0.1875,
            norm="group",
            std=(64, 64, 64),
        ),
        data=Data(root="shapes", max_image_size=128, max_objects=16),
        # Every image is used only a few times, so distortions would help little, and the paper's
        # augmentation needs a longer schedule.
        augment=Augment(distort_probability=0.0, expand_probability=0.0, crop=False),
        optimizer=Optimizer(
            name="muon",
            learning_rate=2e-2,
            adam_lr_multiplier=0.05,
            schedule="cosine",
            warmup_steps=20,
            weight_decay=0.02,
            clip_norm=10.0,
        ),
        train=Train(steps=1000, batch_size=8, eval_every=500, checkpoint_every=500, ema_decay=0.99),
    )
