"""Mutation test: break the code in many small ways and check that the fast tests fail.

    make mutants
    python tests/mutants.py [--only NAME ...]

Each mutant replaces one piece of text in one module. Then at least one fast test in the test files of the mutant has
to fail. The mutants are made in a copy of the checkout. The script prints a line for each mutant. Its exit code is 1
if a mutant survives, that is, if the tests pass. If the text that a mutant replaces is not found, the script stops:
adapt the mutant when the code changes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TIME_LIMIT = 600  # seconds for the tests of a mutant, because some mutants make a test run forever


class Mutant(NamedTuple):
    """A change of one module, and the files of the tests that must detect it."""

    name: str
    module: str
    """Path of the module below ssd_jax, without .py."""
    original: str
    mutated: str
    tests: tuple[str, ...]
    """Paths of the test files below tests, without .py."""


MUTANTS = (
    Mutant(
        "corners_double_half_size",
        "ops/boxes",
        "jnp.concatenate([center - size / 2, center + size / 2]",
        "jnp.concatenate([center - size / 2, center + size]",
        ("ops/test_boxes",),
    ),
    Mutant(
        "union_counts_intersection_twice",
        "ops/boxes",
        "union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection",
        "union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)",
        ("ops/test_boxes",),
    ),
    Mutant(
        "encode_multiplies_variances",
        "ops/boxes",
        "return offsets / jnp.asarray(variances, offsets.dtype)",
        "return offsets * jnp.asarray(variances, offsets.dtype)",
        ("ops/test_boxes",),
    ),
    Mutant(
        "decode_without_upper_bound",
        "ops/boxes",
        "log_scale = jnp.clip(log_scale, *log_scale_bounds)",
        "log_scale = jnp.maximum(log_scale, log_scale_bounds[0])",
        (
            "ops/test_boxes",
            "ops/test_detection",
            "models/test_golden_torchvision",
        ),
    ),
    Mutant(
        "iou_of_small_boxes_is_zero",
        "ops/boxes",
        "jnp.where(union > 0, intersection, 0)",
        "jnp.where(union > 1e-3, intersection, 0)",
        (
            "ops/test_boxes",
            "ops/test_matching",
        ),
    ),
    Mutant(
        "centers_at_cell_corners",
        "ops/default_boxes",
        "(np.arange(cells) + 0.5) * step",
        "np.arange(cells) * step",
        ("ops/test_default_boxes",),
    ),
    Mutant(
        "aspect_ratio_without_root",
        "ops/default_boxes",
        "low * math.sqrt(ratio), low / math.sqrt(ratio)",
        "low * ratio, low / ratio",
        ("ops/test_default_boxes",),
    ),
    Mutant(
        "default_boxes_not_clipped",
        "ops/default_boxes",
        "return np.clip(boxes, 0, 1)",
        "return boxes",
        ("ops/test_default_boxes",),
    ),
    Mutant(
        "sizes_rounded_not_truncated",
        "ops/default_boxes",
        "low, high = int(low), None if high is None else int(high)",
        "low, high = round(low), None if high is None else round(high)",
        ("ops/test_default_boxes",),
    ),
    Mutant(
        "threshold_exclusive",
        "ops/matching",
        "(best_iou >= iou_threshold) &",
        "(best_iou > iou_threshold) &",
        ("ops/test_matching",),
    ),
    Mutant(
        "ties_go_to_later_object",
        "ops/matching",
        "rows >= kept_iou, rows > kept_iou)",
        "rows >= kept_iou, rows >= kept_iou)",
        ("ops/test_matching",),
    ),
    Mutant(
        "one_round_of_proposals",
        "ops/matching",
        "return jax.lax.while_loop(lambda state: state[2].any(), run_round, state)[1]",
        "return run_round(state)[1]",
        ("ops/test_matching",),
    ),
    Mutant(
        "first_class_is_padding",
        "ops/matching",
        "jnp.where(gt_labels[:, None] > 0, iou, 0)",
        "jnp.where(gt_labels[:, None] > 1, iou, 0)",
        ("ops/test_matching",),
    ),
    Mutant(
        "bipartite_match_overridden",
        "ops/matching",
        "objects.at[_match_bipartite(iou)].set",
        "objects.at[_match_bipartite(iou)].min",
        ("ops/test_matching",),
    ),
    Mutant(
        "smooth_l1_discontinuous",
        "ops/loss",
        "jnp.where(size < 1, 0.5 * error**2, size - 0.5)",
        "jnp.where(size < 1, 0.5 * error**2, size)",
        ("ops/test_loss",),
    ),
    Mutant(
        "negatives_rounded_up",
        "ops/loss",
        "jnp.maximum(jnp.floor(neg_pos_ratio * (~eligible).sum()), min_negatives)",
        "jnp.maximum(jnp.ceil(neg_pos_ratio * (~eligible).sum()), min_negatives)",
        ("ops/test_loss",),
    ),
    Mutant(
        "mining_by_first_class",
        "ops/loss",
        "jax.lax.stop_gradient(log_total - logits[..., 0])",
        "(log_total - logits[..., 1])",
        ("ops/test_loss",),
    ),
    Mutant(
        "normalizer_off_by_one",
        "ops/loss",
        "normalizer = jnp.maximum(num_positives, 1) if",
        "normalizer = (num_positives + 1) if",
        ("ops/test_loss",),
    ),
    Mutant(
        "location_weight_ignored",
        "ops/loss",
        "return conf_loss + config.location_weight * loc_loss, parts",
        "return conf_loss + loc_loss, parts",
        ("ops/test_loss",),
    ),
    Mutant(
        "one_tied_negative_less",
        "ops/loss",
        "(jnp.cumsum(tied) <= count - above.sum())",
        "(jnp.cumsum(tied) < count - above.sum())",
        ("ops/test_loss",),
    ),
    Mutant(
        "kept_boxes_suppress_at_threshold",
        "ops/suppression",
        "corners.T) > iou_threshold)\n        within_block",
        "corners.T) >= iou_threshold)\n        within_block",
        (
            "ops/test_suppression",
            "ops/test_detection",
        ),
    ),
    Mutant(
        "block_suppresses_at_threshold",
        "ops/suppression",
        "pairwise_iou(corners.T, corners.T) > iou_threshold",
        "pairwise_iou(corners.T, corners.T) >= iou_threshold",
        (
            "ops/test_suppression",
            "ops/test_detection",
        ),
    ),
    Mutant(
        "score_threshold_inclusive",
        "ops/suppression",
        "jnp.where(scores > score_threshold, scores, 0)",
        "jnp.where(scores >= score_threshold, scores, 0)",
        (
            "ops/test_suppression",
            "ops/test_detection",
        ),
    ),
    Mutant(
        "top_k_off_by_one",
        "ops/suppression",
        "valid &= rank < top_k",
        "valid &= rank <= top_k",
        (
            "ops/test_suppression",
            "ops/test_detection",
        ),
    ),
    Mutant(
        "last_pair_repeated",
        "ops/suppression",
        "((scores == last_score) & (pairs > last_pair))",
        "((scores == last_score) & (pairs >= last_pair))",
        (
            "ops/test_suppression",
            "ops/test_detection",
        ),
    ),
    Mutant(
        "classes_suppress_each_other",
        "ops/suppression",
        "(kept.classes[:, None] == classes) &",
        "(kept.classes[:, None] >= 0) &",
        (
            "ops/test_suppression",
            "ops/test_detection",
        ),
    ),
    Mutant(
        "sigmoid_for_softmax",
        "ops/detection",
        "return boxes, jax.nn.softmax(logits.T, axis=0)[1:].T",
        "return boxes, jax.nn.sigmoid(logits)[:, 1:]",
        ("ops/test_detection",),
    ),
    Mutant(
        "empty_boxes_kept",
        "ops/detection",
        "boxes[:, 2:] > boxes[:, :2], axis=1)",
        "boxes[:, 2:] >= boxes[:, :2], axis=1)",
        ("ops/test_detection",),
    ),
    Mutant(
        "top_k_of_map_off_by_one",
        "ops/detection",
        "min(top_k, map_scores.size)",
        "min(top_k + 1, map_scores.size)",
        ("ops/test_detection",),
    ),
    Mutant(
        "sampling_at_pixel_corners",
        "ops/resample",
        "(jnp.arange(size) + 0.5) * scale - 0.5",
        "jnp.arange(size) * scale",
        (
            "ops/test_augmentation",
            "models/test_golden_torchvision",
            "evaluation/test_evaluator",
        ),
    ),
    Mutant(
        "border_inside",
        "ops/resample",
        "(position < length - 0.5)",
        "(position <= length - 0.5)",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "zoom_out_shifted",
        "ops/augmentation",
        "corner = -jnp.stack([x, y]) * (ratio - 1)",
        "corner = -jnp.stack([x, y]) * ratio",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "last_accepted_patch",
        "ops/augmentation",
        "first_accepted = jnp.argmax(accepted, axis=1)",
        "first_accepted = accepted.shape[1] - 1 - jnp.argmax(accepted[:, ::-1], axis=1)",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "centers_beyond_crop_kept",
        "ops/augmentation",
        "(centers <= window[2:])",
        "(centers < window[2:] + 0.1)",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "flip_swaps_corners",
        "ops/augmentation",
        "jnp.stack([1 - x2, y1, 1 - x1, y2], axis=1)",
        "jnp.stack([1 - x1, y1, 1 - x2, y2], axis=1)",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "brightness_not_clipped",
        "ops/augmentation",
        "planes = jnp.clip(planes + distortion.brightness, 0, 255)",
        "planes = planes + distortion.brightness",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "negative_hue_wraps",
        "ops/augmentation",
        "hue_sixths = jnp.maximum(hue_sixths + hue / 30, 0)",
        "hue_sixths = hue_sixths + hue / 30",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "aspect_ratio_unbounded",
        "ops/augmentation",
        "jnp.clip(_interpolate(*config.crop_aspect_ratio, ratio), scale**2, 1 / scale**2)",
        "_interpolate(*config.crop_aspect_ratio, ratio)",
        ("ops/test_augmentation",),
    ),
    Mutant(
        "warmup_one_step_longer",
        "training/optimizer",
        "jnp.where(point.step < warmup_steps, warmup",
        "jnp.where(point.step < warmup_steps + 1, warmup",
        ("training/test_optimizer",),
    ),
    Mutant(
        "adamw_decays_biases",
        "training/optimizer",
        'optax.adamw(schedule, weight_decay=config.weight_decay, mask=_make_name_mask("kernel"))',
        "optax.adamw(schedule, weight_decay=config.weight_decay)",
        ("training/test_optimizer",),
    ),
    Mutant(
        "voc_threshold_exclusive",
        "metrics/voc_matching",
        "hits = np.flatnonzero(iou >= iou_threshold)",
        "hits = np.flatnonzero(iou > iou_threshold)",
        ("metrics/test_average_precision",),
    ),
    Mutant(
        "missed_ignored_objects_excluded",
        "metrics/voc_matching",
        "counts[hits] = ~ignored[object_order][best[hits]]",
        "counts[iou >= 0] = ~ignored[object_order][best[iou >= 0]]",
        ("metrics/test_average_precision",),
    ),
    Mutant(
        "voc_iou_without_inclusive_pixels",
        "metrics/voc_matching",
        "width, height = (high - low + 1).clip(0)",
        "width, height = (high - low).clip(0)",
        ("metrics/test_average_precision",),
    ),
    Mutant(
        "area_without_envelope",
        "metrics/average_precision",
        "envelope = np.maximum.accumulate(precision[::-1])[::-1]",
        "envelope = precision",
        ("metrics/test_average_precision",),
    ),
    Mutant(
        "equal_scores_reversed",
        "metrics/voc_matching",
        "order = np.lexsort((-scores, labels))",
        "order = np.lexsort((-np.arange(len(labels)), -scores, labels))",
        (
            "metrics/test_average_precision",
            "metrics/test_diagnosis",
            "metrics/test_intervals",
        ),
    ),
    Mutant(
        "std_divides_mean_only",
        "models/ssd",
        "x = ((images - mean) / std).astype(dtype)",
        "x = (images - mean / std).astype(dtype)",
        (
            "models/test_ssd",
            "training/test_loop",
            "training/test_train_step",
        ),
    ),
    Mutant(
        "l2_norm_by_mean",
        "models/vgg",
        "jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + self.eps)",
        "jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)",
        ("models/test_ssd",),
    ),
    Mutant(
        "fc6_dilation_3",
        "models/vgg",
        "padding=6, dilation=6",
        "padding=3, dilation=3",
        (
            "models/test_ssd",
            "models/test_golden_torchvision",
        ),
    ),
    Mutant(
        "winograd_sign",
        "models/layers/winograd",
        "[tap(0) - tap(2), tap(1) + tap(2), tap(2) - tap(1), tap(1) - tap(3)]",
        "[tap(0) - tap(2), tap(1) + tap(2), tap(1) - tap(2), tap(1) - tap(3)]",
        ("models/layers/test_winograd",),
    ),
    Mutant(
        "group_norm_without_epsilon",
        "models/layers/group_norm",
        "jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + EPS)",
        "jax.lax.rsqrt(square - mean * mean)",
        ("models/layers/test_group_norm",),
    ),
    Mutant(
        "invalid_images_counted",
        "training/train_step",
        "return jnp.maximum(((targets.labels > 0) & valid[:, None]).sum(), 1)",
        "return jnp.maximum((targets.labels > 0).sum(), 1)",
        (
            "training/test_loop",
            "training/test_train_step",
        ),
    ),
    Mutant(
        "ema_ignored",
        "training/train_step",
        "return self.params if self.ema_params is None else self.ema_params",
        "return self.params",
        (
            "training/test_loop",
            "training/test_train_step",
        ),
    ),
    Mutant(
        "same_augmentation_every_epoch",
        "training/train_step",
        "jax.random.fold_in(jax.random.fold_in(jax.random.key(config.train.seed), epoch), index)",
        "jax.random.fold_in(jax.random.key(config.train.seed), index)",
        (
            "training/test_loop",
            "training/test_train_step",
            "training/test_replay",
        ),
    ),
    Mutant(
        "not_saved_on_stop",
        "training/loop",
        "save = evaluate or stopping or step % train.checkpoint_every == 0",
        "save = evaluate or step % train.checkpoint_every == 0",
        ("training/test_interrupted",),
    ),
    Mutant(
        "stream_not_restored",
        "training/loop",
        'self.batches.set_state(saved.metadata["stream"])',
        "pass",
        ("training/test_interrupted",),
    ),
    Mutant(
        "logged_rate_of_next_step",
        "training/loop",
        "make_schedule_point(self.config.optimizer, step)",
        "make_schedule_point(self.config.optimizer, step + 1)",
        (
            "training/test_loop",
            "training/test_train_step",
        ),
    ),
    Mutant(
        "loss_not_checked",
        "training/loop",
        'not np.isfinite(metrics["loss"]) or',
        "",
        (
            "training/test_loop",
            "training/test_train_step",
        ),
    ),
    Mutant(
        "one_checkpoint_kept",
        "runs/checkpoint",
        "policies.LatestN(2)",
        "policies.LatestN(1)",
        (
            "runs/test_checkpoint",
            "runs/test_checkpoint_integrity",
            "training/test_interrupted",
        ),
    ),
    Mutant(
        "checksums_not_compared",
        "runs/checkpoint_integrity",
        "if expected.get(name, actual) != actual]",
        "if expected.get(name) != actual and not expected]",
        (
            "runs/test_checkpoint",
            "runs/test_checkpoint_integrity",
            "training/test_interrupted",
        ),
    ),
    Mutant(
        "resumes_without_checkpoint",
        "runs/run_folder",
        "resumed = file.exists() and has_checkpoint(workdir)",
        "resumed = file.exists()",
        (
            "runs/test_run_folder",
            "runs/test_log",
            "commands/test_train",
            "commands/test_main",
        ),
    ),
    Mutant(
        "log_loses_last_line",
        "runs/log",
        'if line["step"] <= step))',
        'if line["step"] < step))',
        (
            "runs/test_run_folder",
            "runs/test_log",
        ),
    ),
    Mutant(
        "first_checkpoint_not_read_back",
        "runs/checkpoint",
        "if is_first:",
        "if False:",
        ("runs/test_checkpoint",),
    ),
    Mutant(
        "path_with_special_characters_kept",
        "runs/plain_path",
        "yield parent / folder.name",
        "yield folder",
        ("runs/test_checkpoint",),
    ),
    Mutant(
        "changed_labels_not_noticed",
        "runs/data_fingerprint",
        "image.boxes_px.tobytes() + image.labels.tobytes()",
        "image.boxes_px.tobytes()",
        ("runs/test_data_fingerprint",),
    ),
    Mutant(
        "ctrl_c_ignored",
        "runtime/stop",
        "_SIGNALS = (signal.SIGINT, signal.SIGTERM)",
        "_SIGNALS = (signal.SIGTERM,)",
        ("runtime/test_stop",),
    ),
    Mutant(
        "nan_boxes_detected",
        "ops/detection",
        "jnp.isfinite(boxes)",
        "boxes > -jnp.inf",
        ("ops/test_detection",),
    ),
    Mutant(
        "watch_serves_links",
        "portability",
        'flags if follows_link else flags | getattr(os, "O_NOFOLLOW", 0)',
        "flags",
        ("watching/test_watcher",),
    ),
    Mutant(
        "watch_reads_on_in_a_replaced_log",
        "watching/log_tail",
        "restarted = file.read(len(self._before)) != self._before",
        "restarted = file.read(len(self._before)) is None",
        ("watching/test_log_tail", "watching/test_run_reader"),
    ),
    Mutant(
        "watch_takes_any_checkpoint_for_the_last",
        "watching/run_reader",
        "elif steps in saved:",
        "elif saved:",
        ("watching/test_run_reader",),
    ),
    Mutant(
        "no_lock",
        "runs/run_folder",
        "if lock_descriptor(descriptor, blocking=False):",
        "if True:",
        (
            "runs/test_run_folder",
            "runs/test_log",
            "commands/test_train",
            "commands/test_main",
        ),
    ),
    Mutant(
        "other_order_of_sums",
        "training/reproducible",
        "sums = sums[0::2] + sums[1::2]",
        "sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]",
        ("training/test_devices",),
    ),
    Mutant(
        "conv1_1_bias_without_std",
        "training/pretrained",
        'bias = bias + np.einsum("hwio,i->o", kernel, (new_mean - mean) / std)',
        'bias = bias + np.einsum("hwio,i->o", kernel, (new_mean - mean))',
        ("training/test_pretrained",),
    ),
    Mutant(
        "transferred_classes_reversed",
        "training/pretrained",
        "labels = [0, *(new.index(name) + 1 for name in kept)]",
        "labels = [*(new.index(name) + 1 for name in kept)]; labels = [0, *labels[::-1]]",
        ("training/test_pretrained",),
    ),
    Mutant(
        "rows_of_other_processes",
        "data/loader",
        "position = step * batch_size + int(rows[slot])",
        "position = step * len(rows) + int(rows[slot])",
        (
            "data/test_loader",
            "training/test_devices",
        ),
    ),
    Mutant(
        "difficult_inverted",
        "data/source",
        "keep = ~annotation.crowd if with_difficult else",
        "keep = ~annotation.crowd if not with_difficult else",
        ("data/test_loader",),
    ),
    Mutant(
        "small_images_enlarged",
        "data/image",
        "scale = min(1.0, canvas[0] / size[0], canvas[1] / size[1])",
        "scale = min(canvas[0] / size[0], canvas[1] / size[1])",
        ("data/test_loader",),
    ),
    Mutant(
        "orientation_5_mirrored",
        "data/pixels",
        "if orientation in (2, 3, 6, 7):",
        "if orientation in (2, 3, 5, 6, 7):",
        ("data/test_image",),
    ),
    Mutant(
        "square_images_as_stored",
        "data/image",
        "return orientation in SWAP_SIDES and size[0] != size[1] and annotated_size == size",
        "return orientation in SWAP_SIDES and annotated_size == size",
        ("data/test_image",),
    ),
    Mutant(
        "equal_image_keeps_own_objects_only",
        "data/check/clean_copy",
        "for file, record in records[1:]:",
        "for file, record in records[:0]:",
        ("data/check/test_clean_copy",),
    ),
    Mutant(
        "moved_box_counts_as_the_same",
        "data/check/clean_copy",
        "SAME_IOU = 0.9",
        "SAME_IOU = 0.5",
        ("data/check/test_clean_copy",),
    ),
    Mutant(
        "unknown_classes_in_one_group",
        "data/source",
        "                group=entry.name,",
        '                group="unknown",',
        ("data/test_problems",),
    ),
    Mutant(
        "train_split_without_objects_accepted",
        "data/check/contents",
        "if not counts[train].total and is_read:",
        "if not counts[train].images:",
        ("data/check/test_contents",),
    ),
    Mutant(
        "tiff_rotated_twice",
        "data/image",
        "is_rotated = exif_orientation(image) != orientation",
        "is_rotated = False",
        ("data/test_image",),
    ),
    Mutant(
        "twelve_bits_are_black",
        "data/pixels",
        "_BITS = (8, 10, 12, 14, 16, 24, 32)",
        "_BITS = (16, 24, 32)",
        ("data/test_pixels",),
    ),
    Mutant(
        "grey_half_of_a_jpeg_accepted",
        "data/jpeg",
        "_MISSING_FRACTION = 0.04",
        "_MISSING_FRACTION = 0.5",
        ("data/test_jpeg",),
    ),
    Mutant(
        "jpeg_reduced_too_far",
        "data/jpeg",
        "if d * 1.5 * canvas_side <= longest_side",
        "if d * canvas_side <= longest_side",
        ("data/test_image",),
    ),
    Mutant(
        "repeated_box_of_other_class",
        "data/source",
        "first_with.setdefault((entry.name, entry.box_px), entry)",
        'first_with.setdefault(("", entry.box_px), entry)',
        (
            "data/test_problems",
            "data/formats/test_voc",
            "data/formats/test_coco",
            "data/check/test_checks",
        ),
    ),
    Mutant(
        "percentage_truncated",
        "data/splits",
        "return round(length * int(text[:-1]) / 100)",
        "return length * int(text[:-1]) // 100",
        ("data/test_splits",),
    ),
    Mutant(
        "two_splits_not_reported",
        "data/check/checks",
        "kind = Kind.TWICE if set(own_splits) == set(twin_splits) else Kind.TWO_SPLITS",
        "kind = Kind.TWICE",
        ("data/check/test_checks",),
    ),
    Mutant(
        "coverage_beyond_box",
        "data/check/box_coverage",
        "sides = np.minimum((size + extents) / 2 - distance, np.minimum(size, extents)).clip(0)",
        "sides = ((size + extents) / 2 - distance).clip(0)",
        ("data/check/test_box_coverage",),
    ),
    Mutant(
        "bootstrap_ignores_images",
        "metrics/intervals",
        "objects = matches.objects @ times\n    correct",
        "objects = matches.objects.sum() * np.ones(times.shape[1])\n    correct",
        ("metrics/test_intervals",),
    ),
    Mutant(
        "coco_intervals_count_detections_on_crowds",
        "metrics/intervals",
        "detections = everything if counted.all() else",
        "detections = everything if len(rows) else",
        ("metrics/test_intervals",),
    ),
    Mutant(
        "constant_box_learns_from_difficult_objects",
        "metrics/constant_box",
        "kept = [~(annotation.difficult | annotation.crowd) for",
        "kept = [~annotation.crowd for",
        ("metrics/test_constant_box",),
    ),
    Mutant(
        "loose_box_takes_the_nearest_of_any_class",
        "metrics/diagnosis",
        "_find_nearest(overlaps, near & same_class)",
        "_find_nearest(overlaps, near)",
        ("metrics/test_diagnosis",),
    ),
    Mutant(
        "advice_ignores_the_state",
        "report/notes",
        "if objects and found < EARLY_SHARE * objects:",
        "if objects and found < 0:",
        ("report/test_notes", "report/test_page"),
    ),
    Mutant(
        "background_counts_as_a_class",
        "weights/importing",
        "counts[bias.size // boxes - 1] += 1",
        "counts[bias.size // boxes] += 1",
        (
            "weights/test_importing",
            "weights/test_key_mappings",
        ),
    ),
    Mutant(
        "images_of_other_splits_are_found",
        "data/formats/coco",
        "return None  # an image of another split may have the same name",
        "pass",
        ("data/formats/test_layout", "data/formats/test_coco"),
    ),
    Mutant(
        "labels_of_other_splits_are_found",
        "data/formats/yolo",
        "if split_of_path(parent(file)) in (own_split, None) or own_split is None",
        "if True",
        ("data/formats/test_layout", "data/formats/test_yolo"),
    ),
    Mutant(
        "links_in_loops_are_followed",
        "data/folder",
        "if key in parents or visits[key] > _MAX_VISITS or",
        "if visits[key] > 10**9 or",
        ("data/test_folder",),
    ),
    Mutant(
        "hidden_files_are_listed",
        "data/folder",
        'return name.startswith(".") or name.casefold() in _LEFTOVERS',
        "return name.casefold() in _LEFTOVERS",
        ("data/test_folder",),
    ),
    Mutant(
        "aliases_are_counted_once",
        "data/formats/documents",
        "sizes[id(node)] = 1 + sum(map(size, children))",
        "sizes[id(node)] = 1 + len(children)",
        ("data/formats/test_documents",),
    ),
    Mutant(
        "train_is_trainval",
        "data/split_names",
        'if folded in _KINDS and folded != "trainval":',
        "if folded in _KINDS:",
        ("data/test_split_names",),
    ),
    Mutant(
        "labelme_image_of_other_split",
        "data/formats/records",
        "return None  # an image of another split may have the same name",
        "pass",
        ("data/formats/test_records",),
    ),
    Mutant(
        "label_studio_turns_about_centre",
        "data/formats/label_studio",
        "return box_around_rotated_box(box, value.rotation, (x, y))",
        "return box_around_rotated_box(box, value.rotation)",
        ("data/formats/test_records",),
    ),
    Mutant(
        "coco_width_from_floats",
        "data/writers/folders",
        "(x1, y1, x2 - x1, y2 - y1)",
        "(x1, y1, round(x2 - x1, 1), y2 - y1)",
        ("data/writers/test_conversion",),
    ),
    Mutant(
        "voc_crowds_are_not_difficult",
        "data/writers/folders",
        "difficult = (annotation.difficult | annotation.crowd).tolist()",
        "difficult = annotation.difficult.tolist()",
        ("data/writers/test_conversion",),
    ),
    Mutant(
        "coco_ids_repeat",
        "data/writers/folders",
        " or 0 < number <= self._last_id:",
        ":",
        ("data/writers/test_folders",),
    ),
    Mutant(
        "unfinished_coco_file_remains",
        "data/writers/folders",
        "            with contextlib.suppress(OSError):\n                os.unlink(stream.name)",
        "            pass",
        ("predictions/test_writers",),
    ),
    Mutant(
        "boxes_beyond_the_image_are_not_cut",
        "data/writers/folders",
        "            x1, y1, x2, y2 = inside\n",
        "            x1, y1, x2, y2 = box\n",
        ("data/writers/test_conversion",),
    ),
    Mutant(
        "failed_conversion_remains",
        "data/writers/conversion",
        "            shutil.rmtree(work, ignore_errors=True)\n",
        "            pass\n",
        ("data/writers/test_conversion",),
    ),
    Mutant(
        "joined_splits_copy_their_images",
        "data/writers/conversion",
        "if earlier is not None and _has_same_objects(annotation, earlier[1]):",
        "if False:",
        ("data/writers/test_conversion",),
    ),
    Mutant(
        "names_differ_only_in_spelling",
        "data/writers/images",
        "self._used.add(spelling_key(stem))",
        "self._used.add(stem)",
        ("data/writers/test_conversion",),
    ),
    Mutant(
        "cameras_of_kitti_are_mixed",
        "data/formats/layout",
        " - bool(_number(a) and _number(a) == _number(b))",
        "",
        ("data/formats/test_records",),
    ),
    Mutant(
        "unused_folders_are_not_told",
        "data/formats/records",
        "(image for image in others if parent(image) not in folders)",
        "()",
        ("data/formats/test_records",),
    ),
    Mutant(
        "two_exports_count_twice",
        "data/formats/records",
        "if (entry.name, entry.box_px) not in known]",
        "]",
        ("data/formats/test_records",),
    ),
    Mutant(
        "createml_corner_is_the_center",
        "data/formats/createml",
        "edges = x - width / 2, y - height / 2,",
        "edges = x, y,",
        ("data/formats/test_records",),
    ),
    Mutant(
        "invalid_faces_are_not_difficult",
        "data/formats/wider_face",
        "others[_INVALID - 4] == 1",
        "others[_INVALID - 4] == 2",
        ("data/formats/test_records",),
    ),
    Mutant(
        "angle_of_via_in_radians",
        "data/formats/via",
        "radius_y, math.degrees(shape.theta))",
        "radius_y, shape.theta)",
        ("data/formats/test_records",),
    ),
    Mutant(
        "oldest_annotation_of_label_studio",
        "data/formats/label_studio",
        "latest = max(annotations,",
        "latest = min(annotations,",
        ("data/formats/test_records",),
    ),
    Mutant(
        "width_of_a_table_is_an_edge",
        "data/formats/csv",
        "            right, bottom = left + right, top + bottom\n",
        "            pass\n",
        ("data/formats/test_records",),
    ),
    Mutant(
        "records_of_other_set_continued",
        "data/writers/conversion",
        'if mark.exists() and key and json.loads(mark.read_text("utf-8")).get("key") == key:',
        "if mark.exists() and key:",
        ("data/writers/test_conversion",),
    ),
    Mutant(
        "val_is_always_held_out",
        "data/formats/open",
        'return self._find("train") if needs_val and not has_val else None',
        'return self._find("train")',
        ("data/formats/test_layout", "data/formats/test_voc"),
    ),
    Mutant(
        "wrong_hash_is_accepted",
        "runtime/download",
        "    if not found.startswith(remote.digest):\n        part.unlink()",
        "    if False:\n        part.unlink()",
        ("model_zoo/test_download",),
    ),
    Mutant(
        "cached_file_is_not_checked",
        "runtime/download",
        "return file.is_file() and compute_digest(file, remote.digest).startswith(remote.digest)",
        "return file.is_file()",
        ("model_zoo/test_download",),
    ),
    Mutant(
        "file_of_the_user_is_not_checked",
        "runtime/download",
        "    found = compute_digest(source, remote.digest)\n",
        "    found = remote.digest\n",
        ("model_zoo/test_download",),
    ),
    Mutant(
        "npm_registry_is_always_the_public_one",
        "export/web_runtime",
        "os.environ.get(REGISTRY_VARIABLE) or PUBLIC_REGISTRY",
        "PUBLIC_REGISTRY",
        ("export/test_web_writer",),
    ),
    Mutant(
        "links_in_an_archive_are_followed",
        "export/web_runtime",
        "if member.isreg() and member.size <= _MAX_BYTES",
        "if member.size <= _MAX_BYTES",
        ("export/test_web_writer",),
    ),
    Mutant(
        "room_for_bodies_is_not_given_back",
        "serving/bodies",
        "self._held -= held",
        "self._held -= 0",
        ("serving/test_bodies",),
    ),
    Mutant(
        "large_images_delay_small_ones",
        "serving/images",
        "self._run(self._large_thread, lambda",
        "self._run(self._threads, lambda",
        ("serving/test_serving_app",),
    ),
    Mutant(
        "class_index_counts_from_one",
        "serving/answers",
        "DetectedObject(detection.name, label - 1,",
        "DetectedObject(detection.name, label,",
        ("serving/test_serving_app",),
    ),
    Mutant(
        "names_of_other_sites_are_accepted",
        "serving/protection",
        "names = [*_LOOPBACK_NAMES,",
        'names = ["*", *_LOOPBACK_NAMES,',
        ("serving/test_protection",),
    ),
    Mutant(
        "any_token_is_accepted",
        "serving/protection",
        "if not hmac.compare_digest(given, self._token):",
        "if not given:",
        ("serving/test_protection",),
    ),
    Mutant(
        "slow_headers_are_awaited",
        "serving/server",
        "return self.conn.their_state is h11.IDLE or (",
        "return (",
        ("serving/test_server",),
    ),
    Mutant(
        "answers_that_nobody_reads_are_kept",
        "serving/server",
        "self._write_timer = self.loop.call_later(idle_seconds, self.transport.abort)",
        "self._write_timer = self.loop.call_later(1000 * idle_seconds, self.transport.abort)",
        ("serving/test_server",),
    ),
    Mutant(
        "page_replaces_other_files",
        "web_page/page",
        "msgspec.json.decode(content, type=PageConfig)",
        "msgspec.json.decode(content)",
        ("web_page/test_page_files",),
    ),
    Mutant(
        "download_starts_again",
        "runtime/download",
        "start = part.stat().st_size if part.exists() else 0",
        "start = 0",
        ("model_zoo/test_download",),
    ),
    Mutant(
        "server_without_ranges_appends",
        "runtime/download",
        "start = 0  # the server sends the whole file",
        "pass",
        ("model_zoo/test_download",),
    ),
    Mutant(
        "name_hides_a_run",
        "model_zoo/opening",
        "    if name in catalog.CATALOG and not _is_network_path(path):",
        "    if name in catalog.CATALOG:",
        ("model_zoo/test_catalog",),
    ),
    Mutant(
        "similar_names_are_case_sensitive",
        "model_zoo/catalog",
        'name.lower().replace("_", "-")',
        "name",
        ("model_zoo/test_catalog",),
    ),
    Mutant(
        "card_is_not_kept",
        "model_zoo/saving",
        "if opened.model_folder is not None and (opened.model_folder / CARD_NAME).is_file():",
        "if False:",
        ("model_zoo/test_model_folder",),
    ),
    Mutant(
        "compilation_counts_for_the_speed",
        "runtime/task",
        "if self._lap is not None and count:",
        "if count and (self._lap := self._lap or self._start):",
        ("runtime/test_progress",),
    ),
    Mutant(
        "duration_drops_hours",
        "runtime/task",
        "hours, minutes = divmod(minutes, 60)",
        "hours = 0",
        ("runtime/test_progress",),
    ),
    Mutant(
        "rate_jumps_with_the_plan",
        "training/timed_length",
        "return min(1.0, self._fraction + (1 - self._fraction) * max(0.0, done))",
        "return min(1.0, max(0.0, done))",
        ("training/test_timed_length",),
    ),
    Mutant(
        "resumed_run_forgets_its_time",
        "training/timed_length",
        'self._started -= state["seconds"]',
        "pass",
        ("training/test_timed_length",),
    ),
    Mutant(
        "plan_ignores_evaluations",
        "training/timed_length",
        "remaining = max(0, math.floor((left - count * evaluation) / per_step))",
        "remaining = max(0, math.floor(left / per_step))",
        ("training/test_timed_length",),
    ),
    Mutant(
        "doubt_on_ignored_object",
        "metrics/doubts",
        "if not (repeats or i in matched or on_ignored[i]):",
        "if not (repeats or i in matched):",
        ("metrics/test_doubts",),
    ),
    Mutant(
        "doubt_score_without_rate_of_mistakes",
        "metrics/doubt_score",
        "(1 - agreed_top) / agreed_top * agreed / (1 - agreed)",
        "agreed / (1 - agreed)",
        ("metrics/test_doubt_score", "metrics/test_doubts"),
    ),
    Mutant(
        "unusual_box_not_compared_with_equals",
        "metrics/doubt_score",
        "<= values[box])",
        "< values[box])",
        ("metrics/test_doubt_score",),
    ),
    Mutant(
        "fold_learns_what_it_judges",
        "auditing/folds",
        "np.flatnonzero(plan.folds != k).tolist()",
        "np.flatnonzero(plan.folds >= 0).tolist()",
        ("auditing/test_folds",),
    ),
    Mutant(
        "sure_class_is_doubted",
        "metrics/doubts",
        "[Disagreement(DoubtKind.CLASS, detection, target)] if agreed_score[target] < score else []",
        "[Disagreement(DoubtKind.CLASS, detection, target)]",
        ("metrics/test_doubts",),
    ),
    Mutant(
        "two_detected_objects_are_a_duplicate",
        "metrics/doubts",
        "if kept and not ignored[j] and agreed_score[j] < LOWEST_DETECTION_SCORE:",
        "if kept and not ignored[j]:",
        ("metrics/test_doubts",),
    ),
    Mutant(
        "place_keeps_its_lowest_doubt",
        "metrics/doubts",
        "best.setdefault(place, doubt)",
        "best[place] = doubt",
        ("metrics/test_doubts",),
    ),
    Mutant(
        "unread_image_is_doubted",
        "metrics/doubts",
        "        if i not in unread\n",
        "        if i not in ()\n",
        ("metrics/test_doubts",),
    ),
    Mutant(
        "doubted_kind_has_no_share",
        "metrics/doubt_score",
        "/ (sure + FEWEST_SUREST) / share)",
        "/ (sure + FEWEST_SUREST))",
        ("metrics/test_doubt_score",),
    ),
    Mutant(
        "duplicates_never_certain_either_way",
        "metrics/doubt_score",
        "return (below + 1) / (len(agreed) + 2)",
        "return below / max(1, len(agreed))",
        ("metrics/test_doubt_score",),
    ),
    Mutant(
        "interval_of_90_percent",
        "metrics/intervals",
        "np.percentile(known, (2.5, 97.5))",
        "np.percentile(known, (5, 95))",
        ("metrics/test_intervals",),
    ),
    Mutant(
        "class_without_objects_lowers_the_mean",
        "metrics/intervals",
        "np.divide(total, known.sum(axis=0), out=",
        "np.divide(total, len(values), out=",
        ("metrics/test_intervals",),
    ),
    Mutant(
        "constant_box_mirrored",
        "metrics/constant_box",
        "(boxes * ([a.width, a.height] * 2))",
        "(boxes * ([a.height, a.width] * 2))",
        ("metrics/test_constant_box",),
    ),
    Mutant(
        "precision_of_constant_boxes_per_object",
        "metrics/constant_box",
        "correct / boxes if boxes else None",
        "correct / objects if boxes else None",
        ("metrics/test_constant_box",),
    ),
    Mutant(
        "unsure_doubt_changes_the_proposal",
        "auditing/proposals",
        "is_proposed = doubt.score >= PROPOSED_SCORE",
        "is_proposed = doubt.score >= 0",
        ("auditing/test_proposals",),
    ),
    Mutant(
        "proposed_box_beyond_the_image",
        "auditing/proposals",
        "box = np.clip(detections.boxes_px[k], 0, [annotation.width, annotation.height] * 2)",
        "box = detections.boxes_px[k]",
        ("auditing/test_proposals",),
    ),
    Mutant(
        "exchanged_networks_not_exchanged",
        "auditing/folds",
        "plan.folds == (k + shift) % len(plan.folders)",
        "plan.folds == k % len(plan.folders)",
        ("auditing/test_folds",),
    ),
    Mutant(
        "networks_of_other_annotations_are_used",
        "auditing/folds",
        'if before.get("train", now) != now:',
        'if before.get("train", now) is None:',
        ("auditing/test_folds",),
    ),
    Mutant(
        "doubt_at_the_edge_outside_the_picture",
        "report/audit_page",
        "start = min(max(0, round(middle - length / 2)), extent - length)",
        "start = max(0, round(middle - length / 2))",
        ("report/test_audit_page",),
    ),
    Mutant(
        "last_checkpoint_counts_as_selected",
        "report/run_facts",
        "elif has_own_data and is_best and evaluations and",
        "elif has_own_data and evaluations and",
        ("report/test_run_facts",),
    ),
    Mutant(
        "training_time_counts_steps_again",
        "runs/log",
        '(line["step"] - self._last) / speed',
        'line["step"] / speed',
        ("report/test_run_facts",),
    ),
    Mutant(
        "names_are_markup",
        "report/template",
        "autoescape=True",
        "autoescape=False",
        ("report/test_page",),
    ),
    Mutant(
        "trained_split_not_noted",
        "report/notes",
        'if facts.use == "trained":',
        'if facts.use == "learned":',
        ("report/test_notes",),
    ),
    Mutant(
        "file_boxes_not_normalised",
        "exported/prediction",
        "np.stack([width, height, width, height], axis=1)",
        "np.stack([height, width, height, width], axis=1)",
        ("exported/test_program",),
    ),
    Mutant(
        "last_batch_not_cut",
        "exported/program",
        "np.concatenate(field)[:count]",
        "np.concatenate(field)",
        ("exported/test_program",),
    ),
    Mutant(
        "exported_sizes_swapped",
        "export/stablehlo_writer",
        "images, sizes[:, 0], sizes[:, 1]",
        "images, sizes[:, 1], sizes[:, 0]",
        ("exported/test_stablehlo_file",),
    ),
    Mutant(
        "tie_with_itself",
        "export/parity",
        "same_class[index] = False",
        "same_class[index] = True",
        ("export/test_parity",),
    ),
    Mutant(
        "parity_ignores_lone_detections",
        "export/parity",
        "parity.scores <= SCORE_TOLERANCE and parity.alone == 0",
        "parity.scores <= SCORE_TOLERANCE",
        ("export/test_parity",),
    ),
    Mutant(
        "tile_cut_without_margin",
        "inference/tiles",
        "margin = MARGIN * (tiles[..., 2:] - tiles[..., :2])",
        "margin = 0.5 * (tiles[..., 2:] - tiles[..., :2])",
        ("inference/test_tiles",),
    ),
    Mutant(
        "tile_at_border_is_cut",
        "inference/tiles",
        "low = (tiles[..., :2] > image[:2]) &",
        "low = (tiles[..., :2] >= image[:2]) &",
        ("inference/test_tiles",),
    ),
    Mutant(
        "tile_parts_are_kept",
        "inference/tiles",
        "rest = rest[~(is_same | is_part)]",
        "rest = rest[~is_same]",
        ("inference/test_tiles",),
    ),
    Mutant(
        "tile_whole_image_boxes_kept",
        "inference/tiles",
        "kept = np.flatnonzero(~(seen_whole & (cut | (view == len(views) - 1))))",
        "kept = np.flatnonzero(~(seen_whole & cut))",
        ("inference/test_tiles",),
    ),
    Mutant(
        "tiles_without_last_column",
        "inference/tiles",
        "count = math.ceil((length - tile) / step) + 1",
        "count = math.ceil((length - tile) / step)",
        ("inference/test_tiles",),
    ),
    Mutant(
        "yolo_labels_from_one",
        "data/writers/folders",
        'lines.append(f"{label - 1} "',
        'lines.append(f"{label} "',
        ("predictions/test_writers",),
    ),
    Mutant(
        "data_set_names_collide",
        "predictions/data_sets",
        "        self._used.add(target.with_name(stem).as_posix().casefold())\n",
        "",
        ("predictions/test_writers",),
    ),
    Mutant(
        "data_set_image_at_reduced_size",
        "predictions/data_sets",
        ".resize(prediction.detections.size), quality=95)",
        ", quality=95)",
        ("predictions/test_writers",),
    ),
    Mutant(
        "interrupted_json_replaces",
        "predictions/tables",
        "            if self._count:\n                os.replace",
        "            if True:\n                os.replace",
        ("predictions/test_writers",),
    ),
    Mutant(
        "crops_of_full_size",
        "predictions/prediction",
        "return self.detections.boxes * np.float32(self.pixels.shape[1] / self.detections.size[0])",
        "return self.detections.boxes",
        ("predictions/test_writers",),
    ),
    Mutant(
        "score_of_is_ignored",
        "commands/predict_output",
        "self.scores_of_classes.get(name, self.score) for name",
        "self.score for name",
        ("commands/test_predict_output",),
    ),
    Mutant(
        "plot_ignores_the_scale",
        "inference/results",
        "self.boxes * np.float32(width / max(1, self.size[0])),",
        "self.boxes,",
        ("inference/test_results",),
    ),
    Mutant(
        "parts_of_text_from_left_always",
        "drawing/fonts",
        "return parts[::-1] if is_right_to_left(text) else parts",
        "return parts",
        ("drawing/test_fonts",),
    ),
    Mutant(
        "checksum_of_the_first_part_only",
        "exported/checksum",
        "for part in others:",
        "for part in others[:0]:",
        ("exported/test_checksum",),
    ),
    Mutant(
        "checksum_in_a_name",
        "exported/checksum",
        "content.rfind(PREFIX",
        "content.find(PREFIX",
        ("exported/test_checksum",),
    ),
    Mutant(
        "onnx_file_not_checked",
        "exported/onnx_file",
        "    if is_checked:",
        "    if not is_checked:",
        ("exported/test_checksum",),
    ),
    Mutant(
        "last_row_beyond_the_image",
        "exported/tflite_file",
        "position.clip(0, length - 1)",
        "position.clip(0, length)",
        ("exported/test_tflite_file",),
    ),
    Mutant(
        "onnx_resize_without_the_next_pixel",
        "export/onnx_network",
        'graph.add("Ceil", position)',
        'graph.add("Floor", position)',
        ("export/test_onnx_model",),
    ),
    Mutant(
        "onnx_pool_drops_the_odd_row",
        "export/onnx_network",
        "pads=[0, 0, size % 2, size % 2]",
        "pads=[0, 0, 0, 0]",
        ("export/test_onnx_model",),
    ),
    Mutant(
        "onnx_norm_of_one_group",
        "export/onnx_network",
        "groups = channels // GROUP_SIZE",
        "groups = 1",
        ("export/test_onnx_model",),
    ),
    Mutant(
        "onnx_std_ignored",
        "export/onnx_network",
        "if any(value != 1 for value in model.std):",
        "if False:",
        ("export/test_onnx_model",),
    ),
    Mutant(
        "onnx_keeps_empty_boxes",
        "export/onnx_detection",
        "    if detect.drop_empty:",
        "    if False:",
        ("export/test_onnx_detection",),
    ),
    Mutant(
        "onnx_uses_infinite_boxes",
        "export/onnx_detection",
        'graph.add("LessOrEqual", graph.add("Abs", boxes), LARGEST_FLOAT)',
        'graph.add("Equal", boxes, boxes)',
        ("export/test_onnx_detection",),
    ),
    Mutant(
        "onnx_order_by_class",
        "export/onnx_detection",
        "selected, np.array([0, 2, 1]), axis=1",
        "selected, np.array([0, 1, 2]), axis=1",
        ("export/test_onnx_detection",),
    ),
    Mutant(
        "onnx_half_stored_as_float32",
        "export/onnx_graph",
        "np.asarray(value, np.float16)",
        "np.asarray(value, np.float32)",
        ("export/test_onnx_model",),
    ),
    Mutant(
        "exported_kernels_not_standardized",
        "export/network",
        "flatten_params(standardize_kernels(params, config.model), half",
        "flatten_params(params, half",
        ("export/test_export",),
    ),
    Mutant(
        "canvas_height_and_width_swapped",
        "export/pictures",
        "for axis in (0, 1))",
        "for axis in (1, 0))",
        ("export/test_export",),
    ),
    Mutant(
        "batches_with_their_canvas",
        "export/pictures",
        "canvas[None, :height, :width]",
        "canvas[None]",
        ("export/test_export",),
    ),
)


def apply_mutant(mutant: Mutant, tree: Path) -> str:
    """Apply a mutant to a copy of the checkout, and return the text that its module had before."""
    file = tree / "ssd_jax" / f"{mutant.module}.py"
    text = file.read_text()
    if text.count(mutant.original) != 1:
        sys.exit(
            f"{mutant.name}: {text.count(mutant.original)} places in {file.name} have the text {mutant.original!r}"
        )
    file.write_text(text.replace(mutant.original, mutant.mutated))
    return text


def survives(mutant: Mutant, tree: Path) -> bool:
    """Return whether all fast tests that a mutant names pass in a copy of the checkout with this mutant."""
    tests = [str(tree / "tests" / f"{test}.py") for test in mutant.tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tree / ".cache"), "PYTHONPATH": str(tree)}
    with subprocess.Popen(
        command, cwd=tree, env=os.environ | cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            return process.wait(TIME_LIMIT) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="names of mutants; default: all")
    only = parser.parse_args().only
    chosen = [mutant for mutant in MUTANTS if not only or mutant.name in only]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info"))
        shutil.copytree(ROOT / "ssd_jax" / "runs", tree / "ssd_jax" / "runs")
        shutil.copytree(ROOT / "tests" / "runs", tree / "tests" / "runs")
        for mutant in chosen:
            start, text = time.perf_counter(), apply_mutant(mutant, tree)
            survived = survives(mutant, tree)
            (tree / "ssd_jax" / f"{mutant.module}.py").write_text(text)
            survivors += [mutant.name] * survived
            print(
                f"{mutant.name:28} {'SURVIVED' if survived else 'killed':9} {time.perf_counter() - start:5.0f} s",
                flush=True,
            )
    print(
        f"{len(chosen) - len(survivors)} of {len(chosen)} mutants killed; survivors: {', '.join(survivors) or 'none'}"
    )
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
