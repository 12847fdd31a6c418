"""Slow and simple reference implementations in plain Python and NumPy, which tests compare the package with.

The implementations were written from the paper and from descriptions of the reference code, without code of the
package.
"""

import colorsys

import numpy as np

# ---- boxes ----


def box_iou(box, other):
    """Return the IoU of two xyxy boxes, without adding 1 to widths and heights."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return width * height / (areas - width * height)


def make_prior_boxes(image_size, feature_maps, min_sizes, max_sizes, aspect_ratios, steps):
    """Return the boxes (cxcywh, normalised) of Caffe's PriorBox layer with flip and without clip."""
    boxes = []
    for cells, low, high, ratios, step in zip(feature_maps, min_sizes, max_sizes, aspect_ratios, steps, strict=True):
        for row in range(cells):
            for column in range(cells):
                cx, cy = (column + 0.5) * step / image_size, (row + 0.5) * step / image_size
                boxes.append((cx, cy, low / image_size, low / image_size))
                if high is not None:
                    side = (low * high) ** 0.5 / image_size
                    boxes.append((cx, cy, side, side))
                for ratio in ratios:
                    for r in (ratio, 1 / ratio):
                        boxes.append((cx, cy, low * r**0.5 / image_size, low / r**0.5 / image_size))
    return np.array(boxes)


# ---- matching, mining, loss ----


def greedy_match(iou, threshold):
    """Return, for each of n boxes, the index of the object that Caffe's MatchBBox assigns to it, or -1.

    `iou` is the matrix (g, n) of the IoUs of g objects and n boxes.
    """
    g, n = len(iou), len(iou[0])
    match = [-1] * n
    free = list(range(g))
    while free:
        best, best_box, best_object = -1.0, None, None
        for j in range(n):
            if match[j] != -1:
                continue
            for o in free:
                if iou[o][j] > 1e-6 and iou[o][j] > best:
                    best, best_box, best_object = iou[o][j], j, o
        if best_box is None:
            break
        match[best_box] = best_object
        free.remove(best_object)
    bipartite = [j for j in range(n) if match[j] != -1]
    for j in range(n):
        if j in bipartite:
            continue
        best = -1.0
        for o in range(g):
            if iou[o][j] > 1e-6 and iou[o][j] >= threshold and iou[o][j] > best:
                best, match[j] = iou[o][j], o
    return match


def select_hard_negatives(background_loss, positive, ratio, min_negatives):
    """Return the set of indices of the negatives in the loss: those of the highest loss, ties by ascending index."""
    candidates = sorted((-loss, i) for i, loss in enumerate(background_loss) if not positive[i])
    count = max(int(ratio * sum(map(bool, positive)) // 1), min_negatives)
    return {i for _, i in candidates[:count]}


def softmax_cross_entropy(logits, label):
    logits = np.asarray(logits, np.float64) - np.max(logits)
    return float(np.log(np.exp(logits).sum()) - logits[label])


def multibox_loss(offsets, logits, target_offsets, labels, ratio, min_negatives, location_weight):
    """Return the total loss, the localisation loss, the confidence loss and the number of positives, in float64."""
    loc = conf = 0.0
    positives = 0
    for b in range(len(labels)):
        positive = [label > 0 for label in labels[b]]
        background = [softmax_cross_entropy(row, 0) for row in logits[b]]
        negatives = select_hard_negatives(background, positive, ratio, min_negatives)
        positives += sum(positive)
        for i in range(len(labels[b])):
            if positive[i]:
                conf += softmax_cross_entropy(logits[b][i], labels[b][i])
                for p, t in zip(offsets[b][i], target_offsets[b][i], strict=True):
                    d = abs(float(p) - float(t))
                    loc += 0.5 * d * d if d < 1 else d - 0.5
            elif i in negatives:
                conf += background[i]
    n = max(1, positives)
    return (conf + location_weight * loc) / n, loc / n, conf / n, positives


# ---- nms, detection ----


def greedy_nms(boxes, scores, iou_threshold):
    """Return the indices of the boxes that Caffe's ApplyNMSFast keeps, by descending score. Scores <= 0 are ignored."""
    candidates = sorted((i for i in range(len(scores)) if scores[i] > 0), key=lambda i: -scores[i])  # a stable sort
    kept = []
    for i in candidates:
        if all(box_iou(boxes[i], boxes[j]) <= iou_threshold for j in kept):
            kept.append(i)
    return kept


def greedy_multiclass_nms(boxes, scores, iou_threshold, top_k=None, eligible=None):
    """Return the kept pairs (box index, class) by descending score, then by box index, then by class.

    `scores` has a row for each box and a column for each class.
    """
    pairs = [(i, c) for i, row in enumerate(scores) for c, score in enumerate(row) if score > 0]
    kept, entered = [], [0] * len(scores[0])
    for i, c in sorted(pairs, key=lambda pair: -scores[pair[0]][pair[1]]):  # a stable sort
        entered[c] += 1
        if (top_k is not None and entered[c] > top_k) or (eligible is not None and not eligible[i]):
            continue
        if all(c != d or box_iou(boxes[i], boxes[j]) <= iou_threshold for j, d in kept):
            kept.append((i, c))
    return kept


def detect_like_caffe(offsets, logits, default_boxes, variances, score_threshold, top_k, iou_threshold, keep_top_k):
    """Return the detections of Caffe's DetectionOutput layer in one image as a list of (score, label, box).

    The list is sorted by descending score, then by box index, then by label.
    """
    boxes, scores = [], []
    for (tx, ty, tw, th), (cx, cy, w, h) in zip(offsets.tolist(), default_boxes.tolist(), strict=True):
        cx, cy = cx + tx * variances[0] * w, cy + ty * variances[1] * h
        w, h = w * np.exp(tw * variances[2]), h * np.exp(th * variances[3])
        boxes.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    for row in logits.astype(np.float64):
        scores.append(np.exp(row - row.max()) / np.exp(row - row.max()).sum())
    detections = []
    for label in range(1, logits.shape[1]):
        passing = [i for i in range(len(boxes)) if scores[i][label] > score_threshold]
        passing = sorted(passing, key=lambda i: -scores[i][label])[:top_k]
        kept = greedy_nms([boxes[i] for i in passing], [scores[i][label] for i in passing], iou_threshold)
        detections += [(scores[passing[k]][label], label, passing[k]) for k in kept]
    detections = sorted(detections, key=lambda d: (-d[0], d[2], d[1]))[:keep_top_k]
    return [(score, label, np.clip(boxes[i], 0, 1)) for score, label, i in detections]


def decode_with_scale_bounds(offsets, default_boxes, low, high):
    """Return boxes (xyxy) decoded as in torchvision's BoxCoder and mmdetection's DeltaXYWHBBoxCoder.

    The variances are 0.1 and 0.2. The logarithms of the scales are clipped to [low, high], the corners to the image.
    """
    boxes = []
    for (tx, ty, tw, th), (cx, cy, w, h) in zip(offsets.tolist(), default_boxes.tolist(), strict=True):
        cx, cy = cx + tx * 0.1 * w, cy + ty * 0.1 * h
        w, h = (side * np.exp(min(max(t * 0.2, low), high)) for side, t in ((w, tw), (h, th)))
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        boxes.append(tuple(min(max(x, 0.0), 1.0) for x in corners))
    return boxes


def torchvision_batched_nms(candidates, iou_threshold, limit):
    """Return the candidates (score, label, box index, box) that torchvision's batched_nms keeps, at most `limit`.

    The list is sorted by descending score, then by box index, then by label.
    """
    kept = []
    for label in sorted({label for _, label, _, _ in candidates}):
        same_label = sorted((c for c in candidates if c[1] == label), key=lambda c: (-c[0], c[2]))
        boxes, scores = [c[3] for c in same_label], [c[0] for c in same_label]
        kept += [same_label[i] for i in greedy_nms(boxes, scores, iou_threshold)]
    return sorted(kept, key=lambda c: (-c[0], c[2], c[1]))[:limit]


def softmax(row):
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()


def detect_like_torchvision(offsets, logits, default_boxes, threshold, top_k, iou_threshold, limit):
    """Return the detections of torchvision's SSD.postprocess_detections as a list of (score, label, box index, box)."""
    boxes = decode_with_scale_bounds(offsets, default_boxes, -np.inf, np.log(1000 / 16))
    scores = [softmax(row) for row in logits]
    candidates = []
    for label in range(1, logits.shape[1]):
        passing = [i for i in range(len(boxes)) if scores[i][label] > threshold]
        passing = sorted(passing, key=lambda i: -scores[i][label])[:top_k]
        candidates += [(scores[i][label], label, i, boxes[i]) for i in passing]
    return torchvision_batched_nms(candidates, iou_threshold, limit)


def detect_like_mmdetection(offsets, logits, default_boxes, boxes_per_map, threshold, nms_pre, iou_threshold, limit):
    """Return the detections of mmdetection as a list of (score, label, box index, box).

    The algorithm is that of BaseDenseHead._predict_by_feat_single with min_bbox_size 0, but class 0 is background.
    """
    boxes = decode_with_scale_bounds(offsets, default_boxes, -np.log(1000 / 16), np.log(1000 / 16))
    candidates, start = [], 0
    for count in boxes_per_map:
        map_candidates = []
        for i in range(start, start + count):
            for label, score in enumerate(softmax(logits[i])):
                if label > 0 and score > threshold:
                    map_candidates.append((score, label, i, boxes[i]))
        candidates += sorted(map_candidates, key=lambda c: (-c[0], c[2], c[1]))[:nms_pre]
        start += count
    candidates = [c for c in candidates if c[3][2] - c[3][0] > 0 and c[3][3] - c[3][1] > 0]
    return torchvision_batched_nms(candidates, iou_threshold, limit)


# ---- augmentation ----


def sample_patch(rng, scale_range, ratio_range):
    """Return a random patch (xyxy, normalised), drawn as in Caffe's SampleBBox.

    One limit of the Caffe code is left out, because it would turn every patch into the whole image.
    """
    scale = rng.uniform(*scale_range)
    ratio = rng.uniform(*ratio_range)
    ratio = max(ratio, scale**2)
    ratio = min(ratio, 1 / scale**2)
    width, height = min(scale * ratio**0.5, 1.0), min(scale / ratio**0.5, 1.0)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return (left, top, left + width, top + height)


def sample_patches(rng, boxes, min_overlaps, trials, scale_range, ratio_range):
    """Return the whole image and random patches as in Caffe's GenerateBatchSamples, with ssd_pascal.py's samplers."""
    samples = [(0.0, 0.0, 1.0, 1.0)]
    for low, high in [(overlap, 1e9) for overlap in min_overlaps] + [(-1e9, 1.0)]:
        for _ in range(trials):
            patch = sample_patch(rng, scale_range, ratio_range)
            if any(low <= box_iou(patch, box) <= high for box in boxes):
                samples.append(patch)
                break  # ssd_pascal.py sets max_sample to 1
    return samples


def crop_annotation(boxes, labels, window):
    """Return boxes and labels cropped to a window as by Caffe's TransformAnnotation with the CENTER rule.

    The cropped boxes are in coordinates of the window. A dropped box and its label are zeros.
    """
    left, top, right, bottom = window
    cropped = []
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        if label == 0 or cx < left or cx > right or cy < top or cy > bottom:
            cropped.append(((0, 0, 0, 0), 0))
            continue
        x1, x2 = ((min(max(x, left), right) - left) / (right - left) for x in (x1, x2))
        y1, y2 = ((min(max(y, top), bottom) - top) / (bottom - top) for y in (y1, y2))
        cropped.append(((x1, y1, x2, y2), label) if x2 > x1 and y2 > y1 else ((0, 0, 0, 0), 0))
    return np.array([b for b, _ in cropped], float).reshape(-1, 4), [label for _, label in cropped]


def expand_image(image, height, width, top, left, fill):
    """Return a canvas of the colour `fill` with the image at row `top` and column `left`, as in Caffe's ExpandImage."""
    canvas = np.empty((height, width, 3))
    canvas[:] = fill
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def interpolate_bilinearly(image, y, x):
    """Return the pixel value at (y, x), interpolated bilinearly. Pixel centres are at integer coordinates."""
    y0, x0 = int(np.floor(y)), int(np.floor(x))
    y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
    top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
    bottom = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


def resize_like_cv2(image, size):
    """Return the image resized to size x size pixels as by cv2.resize with INTER_LINEAR, in float64."""
    height, width = image.shape[:2]
    out = np.empty((size, size, 3))
    for i in range(size):
        y = min(max((i + 0.5) * height / size - 0.5, 0), height - 1)
        for j in range(size):
            x = min(max((j + 0.5) * width / size - 0.5, 0), width - 1)
            out[i, j] = interpolate_bilinearly(image.astype(float), y, x)
    return out


def distort_pixel(rgb, brightness, contrast, saturation, hue, contrast_first, channel_order):
    """Return one RGB pixel after Caffe's ApplyDistort, computed with Python's colorsys and without rounding."""

    def clip_to_byte_range(values):
        return [min(max(v, 0.0), 255.0) for v in values]

    def change_in_hsv(values, change):
        h, s, v = colorsys.rgb_to_hsv(*(x / 255 for x in values))
        # In OpenCV's 8-bit HSV, H is from 0 to 180 and S from 0 to 255. Both are clipped to [0, 255].
        h, s = change(h * 180, s * 255)
        (h,), (s,) = clip_to_byte_range([h]), clip_to_byte_range([s])
        return [x * 255 for x in colorsys.hsv_to_rgb(h % 180 / 180, s / 255, v)]

    def apply_operation(values, operation):
        if operation == "contrast":
            return clip_to_byte_range([x * contrast for x in values])
        if operation == "saturation":
            return change_in_hsv(values, lambda h, s: (h, s * saturation))
        return change_in_hsv(values, lambda h, s: (h + hue, s))

    values = clip_to_byte_range([x + brightness for x in rgb])
    orders = {True: ("contrast", "saturation", "hue"), False: ("saturation", "hue", "contrast")}
    for operation in orders[bool(contrast_first)]:
        values = apply_operation(values, operation)
    return [values[c] for c in channel_order]


# ---- metrics ----


def voc_iou(box, other):
    """Return the IoU of two boxes (xyxy, pixels) as in VOCevaldet.m, where column x2 and row y2 belong to the box."""
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) + (other[2] - other[0] + 1) * (other[3] - other[1] + 1)
    return width * height / (areas - width * height)


def voc_precision_recall(detections, ground_truth, iou_threshold):
    """Return the lists of the precision and the recall after each detection, by descending score, as in VOCevaldet.m.

    For each image, `detections` has a list of (box, score), and `ground_truth` a list of (box, difficult).
    """
    npos = sum(not difficult for image in ground_truth for _, difficult in image)
    flat = [(score, image, box) for image, boxes in enumerate(detections) for box, score in boxes]
    flat.sort(key=lambda d: -d[0])  # a stable sort
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
    """Return the average precision as in VOCap.m.

    It is the mean over the recall points np.arange(0, 1.1, 0.1), as for VOC 2007, if `eleven_point` is set; otherwise
    the area under the curve, as for VOC 2012.
    """
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


def classify_detections(boxes, scores, labels, gt_boxes, gt_labels, ignored, score, iou_threshold):
    """Return outcomes (index, type, matched object), indices of unmatched objects, and (near object, IoU) or None.

    The first and the last list have an item for each detection, with None for no object. Detections below the given
    score are left out. The outcomes are sorted by descending score.
    """
    taken = [False] * len(gt_boxes)
    outcomes, nearest = [], []
    for i in sorted((i for i in range(len(scores)) if scores[i] >= score), key=lambda i: -scores[i]):  # a stable sort
        best, best_iou, on_taken, same, other = None, -1.0, False, [], []
        for j in range(len(gt_boxes)):
            overlap = voc_iou([float(v) for v in boxes[i]], [float(v) for v in gt_boxes[j]])
            if overlap < iou_threshold:
                if overlap >= 0.1 and not ignored[j]:
                    (same if gt_labels[j] == labels[i] else other).append((overlap, -j))
                continue
            if taken[j]:
                on_taken = True
            elif overlap > best_iou:
                best, best_iou = j, overlap
        near = None
        if best is None:
            if on_taken:
                outcomes.append((i, "duplicate", None))
            else:
                outcomes.append((i, "localization" if same else "both" if other else "background", None))
                near = max(same or other, default=None)
        elif ignored[best]:
            outcomes.append((i, "ignored", None))
        else:
            taken[best] = True
            outcomes.append((i, "correct" if gt_labels[best] == labels[i] else "classification", best))
        nearest.append(None if near is None else (-near[1], near[0]))
    return outcomes, [j for j in range(len(gt_boxes)) if not taken[j] and not ignored[j]], nearest
