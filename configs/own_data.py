"""A detector for your own pictures, trained from scratch: no pretrained weights, and a CPU will do.

1. Put the pictures and their boxes into a folder, in VOC, COCO or YOLO layout.
2. python train.py configs/own_data.py --data.root FOLDER

Class names and splits are found from the folder. An SSD300 of a quarter of the paper's channels
with GroupNorm and weight standardization, for training from scratch. The default boxes are those of
SSD300 on COCO, whose smallest are 21 px of 300, for small objects.

Pictures seen are steps x batch_size: 9 600 by default. A thousand pictures or more deserve more
steps, and with a GPU --model.width 0.5 or 1.
"""

from ssd_jax.config import SSD300_COCO_BOXES, Augment, Config, Data, Loss, Model, Optimizer, Train


def get_config() -> Config:
    return Config(
        name="own_data",
        model=Model(default_boxes=SSD300_COCO_BOXES, width=0.25, norm="group", std=(64, 64, 64), l2_norm_scale=5.0),
        data=Data(root=""),
        # Milder than the paper's, whose zoom-out of four times and crops to 0.3 need a schedule many times as long.
        augment=Augment(expand_probability=0.3, expand_max_ratio=1.5, crop_scale=(0.6, 1.0)),
        loss=Loss(min_negatives=3),  # so that pictures without objects count
        optimizer=Optimizer(
            name="muon", learning_rate=1e-2, schedule="cosine", warmup_steps=30, weight_decay=0.02, clip_norm=10.0
        ),
        train=Train(steps=1200, batch_size=8, eval_every=200, checkpoint_every=200, ema_decay=0.998),
    )
