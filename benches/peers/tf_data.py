"""tf.data: the policy and the base augmentation in TensorFlow's own ops, mapped over images.

Written as the model gardens write AutoAugment: a map over single images, `switch_case` for the op
of a step, affine ops through `ImageProjectiveTransformV3`, everything drawn inside the graph. The
walk is the paper's: all slots fire, and of those that did the first two in a random order count.
There is no mask: exposed pixels take the mean colour at once, and later ops change them. One thread,
as everybody has; TensorFlow's pool of threads is private to the dataset.

- `tf_data`: in process;
- `tf_data:jpeg`: from JPEG files in memory, of which only the crop is decoded;
- `tf_data:stream,CORES`: tf.data service on these cores, as 0+1, sends batches that were made before;
- `tf_data:deliver,CORES`: tf.data service does the whole work.
"""

import multiprocessing
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from measured import compared, end_with_parent, measure  # noqa: E402
from policy import AFFINE, BATCH, PARAMETER, WithOps, affine_coefficients, last_policy  # noqa: E402

GRAY = [0.299, 0.587, 0.114]
BLUR = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
# As for the batches that everybody reads: an epoch is shuffled as a whole.
SHUFFLED = 50_000


def versions():
    return f"TensorFlow {tf.__version__}, NumPy {np.__version__}"


def threads(count):
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)


def options(count):
    chosen = tf.data.Options()
    chosen.threading.private_threadpool_size = count
    chosen.threading.max_intra_op_parallelism = 1
    chosen.deterministic = True
    return chosen


def transform(op, value, side):
    """Where a pixel of the result comes from, as `ImageProjectiveTransformV3` takes it."""
    a, b, c, d, e, f = affine_coefficients(op, value, side)
    # It counts from the centres of pixels, Pillow from their corners.
    return [a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, 0, 0]


def rounded(image):
    return tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)


def blend(first, second, factor):
    """uint8 of `first + factor * (second - first)`, both float."""
    return rounded(first + factor * (second - first))


class Augment(WithOps):
    def prepare(self):
        self.slots = [slot for slot in last_policy() if slot[1] > 0]
        self.colour = tf.constant(self.mean, tf.uint8)

    def erased(self, image, top, left, height, width):
        rows, columns = tf.range(self.side)[:, None], tf.range(self.side)[None, :]
        hole = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
        return tf.where(hole[..., None], self.colour, image)

    def affine(self, image, transforms):
        """What is exposed takes the mean colour: its operator fills with one number, so that the
        image is moved as its difference from the mean."""
        moved = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(image, tf.float32)[None] - tf.cast(self.colour, tf.float32),
            transforms=transforms, output_shape=[self.side, self.side], fill_value=0.0,
            interpolation="NEAREST", fill_mode="CONSTANT")[0]
        return rounded(moved + tf.cast(self.colour, tf.float32))

    def op(self, name, level, image, sign, column, row):
        """A uint8 image after one op; sign, column and row are tensors."""
        value = PARAMETER[name](level)
        if name in AFFINE:
            both = tf.constant([transform(name, value, self.side), transform(name, -value, self.side)])
            return self.affine(image, tf.gather(both, (1 - sign) // 2)[None])
        if name == "Brightness":
            return rounded(tf.cast(image, tf.float32) * value)
        if name == "Color":
            wide = tf.cast(image, tf.float32)
            return blend(tf.tensordot(wide, GRAY, 1)[..., None], wide, value)
        if name == "Contrast":
            wide = tf.cast(image, tf.float32)
            return blend(tf.floor(tf.reduce_mean(tf.tensordot(wide, GRAY, 1)) + 0.5), wide, value)
        if name == "Sharpness":
            wide = tf.cast(image, tf.float32)
            kernel = tf.constant(np.tile(BLUR[:, :, None, None], (1, 1, 3, 1)))
            inner = tf.nn.depthwise_conv2d(wide[None], kernel, [1, 1, 1, 1], "VALID")[0]
            # Pillow leaves the outermost pixels as they are.
            border = tf.pad(tf.ones_like(inner), [[1, 1], [1, 1], [0, 0]])
            smooth = tf.where(border == 1, tf.pad(tf.floor(inner + 0.5), [[1, 1], [1, 1], [0, 0]]), wide)
            return blend(smooth, wide, value)
        if name == "Posterize":
            return tf.bitwise.bitwise_and(image, tf.constant(256 - (1 << (8 - value)), tf.uint8))
        if name == "Solarize":
            return tf.where(image < value, image, 255 - image) if value < 256 else image
        if name == "Invert":
            return 255 - image
        if name == "Equalize":
            return tf.stack([self.equalize(image[..., channel]) for channel in range(3)], -1)
        if name == "AutoContrast":
            low, high = (tf.cast(f(image, [0, 1]), tf.float32) for f in (tf.reduce_min, tf.reduce_max))
            scale = tf.where(high > low, 255 / tf.maximum(high - low, 1), 1.0)
            low = tf.where(high > low, low, 0.0)
            return rounded((tf.cast(image, tf.float32) - low) * scale)
        if name == "Cutout":
            half = value // 2
            top, left = tf.maximum(0, row - half), tf.maximum(0, column - half)
            return self.erased(image, top, left, tf.minimum(self.side, row + half) - top,
                               tf.minimum(self.side, column + half) - left)
        raise ValueError(name)

    def equalize(self, plane):
        counts = tf.math.bincount(tf.cast(tf.reshape(plane, [-1]), tf.int32), minlength=256, maxlength=256)
        last = counts[tf.cast(tf.reduce_max(plane), tf.int32)]
        step = (tf.size(plane) - last) // 255
        table = tf.minimum((step // 2 + tf.cumsum(counts, exclusive=True)) // tf.maximum(step, 1), 255)
        table = tf.where(step > 0, table, tf.range(256))
        return tf.gather(tf.cast(table, tf.uint8), tf.cast(plane, tf.int32))

    def draws(self, count):
        """All that is random for `count` images, at once: the branch of each step (the last one is to
        do nothing), sign, row and column of each step's cutout, corner of the crop, flip, and row and
        column of the last cutout's corner."""
        slots, side, padding = len(self.slots), self.side, self.base.padding
        probability = tf.constant([slot[1] / 10 for slot in self.slots], tf.float32)
        order = tf.where(tf.random.uniform([count, slots]) < probability, tf.random.uniform([count, slots]), -1.0)
        keys, chosen = tf.math.top_k(order, 2)
        draw = tf.random.uniform([count, 1])
        limit = tf.cast(draw >= 0.2, tf.int32) + tf.cast(draw >= 0.5, tf.int32)
        fires = (tf.constant([[0, 1]]) < limit) & (keys >= 0)

        def below(limit, *shape):
            return tf.random.uniform([count, *shape], 0, limit, tf.int32)

        return (tf.where(fires, chosen, slots), 1 - 2 * below(2, 2), below(side, 2, 2), below(2 * padding, 2),
                below(2), below(side, 2) - self.base.cutout // 2)

    def policy(self, image, branches, signs, centres):
        for step in range(2):
            sign, centre = signs[step], centres[step]
            calls = [lambda name=name, level=level, image=image: self.op(
                name, level, image, sign, centre[0], centre[1]) for name, _, level in self.slots]
            image = tf.switch_case(branches[step], [*calls, lambda image=image: image])
            image = tf.ensure_shape(image, [self.side, self.side, 3])
        return image

    def mirrored(self, image, flip):
        return tf.cond(flip == 1, lambda: image[:, ::-1], lambda: image)

    def finish(self, image, corner, flip, hole):
        """Crop, flip and cutout."""
        padding, size = self.base.padding, self.base.cutout
        # Filled with the mean colour.
        padded = tf.pad(image - self.colour, [[padding, padding], [padding, padding], [0, 0]])
        image = tf.slice(padded, [corner[0], corner[1], 0], [self.side, self.side, 3]) + self.colour
        return self.erased(self.mirrored(image, flip), hole[0], hole[1], size, size)

    def one(self, image, branches, signs, centres, corner, flip, hole):
        return self.finish(self.policy(image, branches, signs, centres), corner, flip, hole)

    def apply(self, call, picture):
        name, level, sign, column, row = call
        return self.op(name, level, tf.constant(picture), tf.constant(sign), column, row).numpy(), None


class TfData:
    """Batches of a dataset, in this process or, with `processes`, from others."""

    def __init__(self, dataset, augment=None, processes=(), ahead=0):
        self.batches, self.augment = dataset.as_numpy_iterator(), augment
        self.processes, self.ahead = processes, ahead
        next(self.batches)

    def measure(self, seconds):
        # What was made while others were measured does not count.
        for _ in range(self.ahead):
            next(self.batches)
        return measure(seconds, self.batches, self.processes)

    def apply(self, op, level, sign, column, row, picture):
        return compared(self.augment, op, level, sign, column, row, picture)


def with_draws(samples, augment):
    """Each sample with its draws, which are made for a batch at a time."""
    return samples.batch(BATCH).map(lambda batch: (batch, *augment.draws(tf.shape(batch)[0]))).unbatch()


def indices(count):
    return tf.data.Dataset.range(count).shuffle(min(SHUFFLED, count)).repeat()


def from_memory(pictures, augment):
    """Shuffled indices, images gathered from one tensor, the map, batches."""
    images = tf.constant(pictures)
    samples = with_draws(indices(len(pictures)), augment)
    return (samples.map(lambda index, *draws: augment.one(images[index], *draws))
            .batch(BATCH, drop_remainder=True).with_options(options(1)))


def from_jpeg(files, augment):
    side = augment.side
    files = tf.constant(files)

    def one(index, branches, signs, centres, corner, flip, hole):
        file = files[index]
        corner, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(file), tf.zeros([1, 0, 4]), min_object_covered=0.0,
            aspect_ratio_range=[3 / 4, 4 / 3], area_range=[0.08, 1.0], max_attempts=10,
            use_image_if_no_bounding_boxes=True)
        window = tf.concat([corner[:2], size[:2]], 0)
        # The fast ways of libjpeg-turbo, which experts choose here.
        image = tf.image.decode_and_crop_jpeg(file, window, channels=3, fancy_upscaling=False,
                                              dct_method="INTEGER_FAST")
        image = rounded(tf.image.resize(image, [side, side]) + 0.5)
        return augment.mirrored(augment.policy(image, branches, signs, centres), flip)

    samples = with_draws(indices(len(files)), augment)
    return samples.map(one).batch(BATCH, drop_remainder=True).with_options(options(1))


def serve(cores, ready):
    """tf.data service: a dispatcher and one worker, until the process is ended."""
    end_with_parent()
    os.sched_setaffinity(0, cores)
    threads(len(cores))
    dispatcher = tf.data.experimental.service.DispatchServer()
    worker = tf.data.experimental.service.WorkerServer(tf.data.experimental.service.WorkerConfig(
        dispatcher_address=dispatcher.target.split("://")[1], dispatcher_timeout_ms=60_000))
    ready.send(dispatcher.target)
    worker.join()


def service(way, cores, arguments, file):
    """Batches through tf.data service. The worker reads the pictures from their file once, and
    keeps them."""
    # Begun before this process has threads of TensorFlow.
    receive, send = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(cores, send), daemon=True)
    server.start()
    target = receive.recv()
    pictures, *rest = arguments
    shape = pictures.shape[1:]
    augment = Augment(pictures[:1], *rest)
    if way == "stream":
        # As a dispatcher sees it: whole batches, made before, in memory after the first epoch.
        batch_bytes = BATCH * int(np.prod(shape))
        dataset = tf.data.FixedLengthRecordDataset(file, batch_bytes, footer_bytes=pictures.size % batch_bytes)
        dataset = dataset.map(lambda record: tf.reshape(tf.io.decode_raw(record, tf.uint8), [BATCH, *shape]))
        dataset = dataset.cache().repeat()
    else:
        dataset = tf.data.FixedLengthRecordDataset(file, int(np.prod(shape))).cache()
        dataset = with_draws(dataset.shuffle(min(SHUFFLED, len(pictures))).repeat(), augment)
        dataset = dataset.map(
            lambda record, *draws: augment.one(tf.reshape(tf.io.decode_raw(record, tf.uint8), shape), *draws),
            num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    dataset = dataset.apply(tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.OFF, service=target, compression=None,
        max_outstanding_requests=4))
    return TfData(dataset, processes=[server.pid], ahead=8)


def start(way, arguments, file):
    way, *rest = way.split(",")
    pictures, *others = arguments
    if way in ("stream", "deliver"):
        return service(way, {int(core) for core in rest[0].split("+")}, arguments, file)
    threads(1)
    if way == "jpeg":
        augment = Augment(np.zeros((1, 224, 224, 3), np.uint8), *others)
        return TfData(from_jpeg(pictures, augment))
    augment = Augment(*arguments)
    return TfData(from_memory(pictures, augment), augment)
