"""Slow, obvious oracles: plain numpy and Python loops, written from the paper and the reference
code's description, sharing nothing with the package."""

import numpy as np


# ---- boxes ----

# ---- matching, mining, loss ----

# ---- nms, detection ----

# ---- augmentation ----

# ---- metrics ----


def voc_iou(a, b):
    """IoU of two pixel boxes, last pixel inside, as VOCevaldet.m writes it."""
    iw = min(a[2], b[2]) - max(a[0], b[0]) + 1
    ih = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if iw <= 0 or ih <= 0:
        return 0.0
    union = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - iw * ih
    return iw * ih / union


def voc_precision_recall(detections, ground_truth, iou_threshold):
    """VOCevaldet.m. detections: per image a list of (box, score); ground_truth: of (box, difficult)."""
    npos = sum(not difficult for image in ground_truth for _, difficult in image)
    flat = [(score, image, box) for image, found in enumerate(detections) for box, score in found]
    flat.sort(key=lambda d: -d[0])  # stable
    taken = [[False] * len(image) for image in ground_truth]
    tp = fp = 0
    precision, recall = [], []
    for _, image, box in flat:
        best, best_iou = None, -1.0
        for j, (gt, _) in enumerate(ground_truth[image]):
            overlap = voc_iou([float(v) for v in box], [float(v) for v in gt])
            if overlap > best_iou:
                best, best_iou = j, overlap
        if best is not None and best_iou >= iou_threshold:
            if not ground_truth[image][best][1]:
                if taken[image][best]:
                    fp += 1
                else:
                    tp += 1
                    taken[image][best] = True
        else:
            fp += 1
        precision.append(tp / (tp + fp) if tp + fp else 0.0)
        recall.append(tp / npos if npos else float("nan"))
    return precision, recall


def voc_ap(precision, recall, eleven_point):
    """VOCap.m of 2007 and of 2012, the points those of numpy."""
    if eleven_point:
        ap = 0.0
        for point in np.arange(0, 1.1, 0.1):
            reached = [p for p, r in zip(precision, recall, strict=True) if r >= point]
            ap += max(reached, default=0.0) / 11
        return ap
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1])
