"""What is measured: the works, the ways to do them, and what the design asks for."""

from dataclasses import dataclass

OURS = "pba"


@dataclass(frozen=True)
class Way:
    """One way to do a work: a line of the table."""

    name: str
    title: str
    works: tuple
    module: str = ""
    environment: str = ""
    remark: str = ""
    # Whether it claims to make the very pixels that we make. The claim is checked.
    exact: bool = False
    # The way of ours that it is compared with.
    beside: str = OURS

    @property
    def ours(self):
        return self.title.startswith("**PBA")


NO_MASK = "exposed pixels take the mean colour at once, and later ops change them"
DALI = "exposed pixels take a gray at once, and later ops change them; draws come from NumPy"
TENSORFLOW = NO_MASK
WAYS = [
    Way(OURS, "**PBA engine**", ("32", "224")),
    Way("pillow-shipped", "Pillow as shipped, on RGBA as the paper's authors use it", ("32", "224"),
        "pillow_shipped", "pillow", exact=True),
    Way("pillow-best", "Pillow at its best", ("32", "224"), "pillow_best", "pillow", exact=True),
    Way("opencv", "OpenCV and NumPy by hand", ("32", "224"), "opencv_numpy", "opencv"),
    Way("albumentations", "albumentations", ("32", "224"), "albumentations_peer", "albumentations",
        NO_MASK + "; shears about the centre; Sharpness never blurs"),
    Way("torchvision", "torchvision v2, image by image", ("32", "224"), "torchvision_v2:image", "torch", NO_MASK),
    Way("torchvision-grouped", "torchvision v2, grouped by op", ("32", "224"), "torchvision_v2:grouped", "torch",
        NO_MASK),
    Way("dali", "DALI, its CPU operators", ("32", "224"), "dali_peer", "dali", DALI),
    Way("tf", "tf.data, in process", ("32", "224"), "tf_data", "tensorflow", TENSORFLOW),
    *(
        Way(f"loader-{peer}-{workers}", f"PyTorch DataLoader, {title}, {workers} worker{'s' * (workers > 1)}",
            ("32", "deliver"), f"torch_loader:{module},{workers}", "torch")
        for peer, title, module in [("pillow", "Pillow at its best", "pillow_best"),
                                    ("opencv", "OpenCV by hand", "opencv_numpy")]
        for workers in (1, 2)
    ),
    Way(OURS, "**PBA server and Python client**", ("stream",), "pba_stream:identity", "client"),
    Way("raw", "bare socket, the same bytes from memory", ("stream",), "pba_stream:raw", "client",
        "nothing is looked at; the bytes are an epoch, more than a cache holds"),
    Way("raw-hot", "bare socket, the same 256 KiB again and again", ("stream",), "pba_stream:raw-hot", "client",
        "nothing is looked at, and nothing leaves the cache"),
    Way("pba-unix", "**PBA server and Python client**, Unix socket", ("stream",), "pba_stream:identity-unix", "client"),
    Way("raw-unix", "bare Unix socket, the same bytes from memory", ("stream",), "pba_stream:raw-unix", "client",
        "nothing is looked at; the bytes are an epoch, more than a cache holds", beside="pba-unix"),
    Way("raw-unix-hot", "bare Unix socket, the same 256 KiB again and again", ("stream",), "pba_stream:raw-unix-hot",
        "client", "nothing is looked at, and nothing leaves the cache", beside="pba-unix"),
    Way("pba-memory", "**PBA server and Python client**, shared memory", ("stream",), "pba_stream:identity-memory",
        "client", "nothing is copied; as with the others, the pixels are not looked at"),
    # Client and server are on one machine, as in every peer.
    Way(OURS, "**PBA server and Python client**, shared memory", ("deliver",), "pba_stream:client-memory", "client"),
    Way("pba-unix", "**PBA server and Python client**, Unix socket", ("deliver",), "pba_stream:client-unix", "client"),
    Way("pba-tcp", "**PBA server and Python client**, TCP", ("deliver",), "pba_stream:client", "client"),
    Way("flight", "Arrow Flight", ("stream",), "flight", "client",
        "record batches made before, of images, labels and indices as ours"),
    Way("loader-untouched", "PyTorch DataLoader, 1 worker, through shared memory", ("stream",),
        "torch_loader:untouched,1", "torch", "the worker gathers shuffled images, and does nothing else"),
    Way("tf-service", "tf.data service", ("stream",), "tf_data:stream", "tensorflow",
        "batches made before; uncompressed, one worker process"),
    Way("tf-service", "tf.data service", ("deliver",), "tf_data:deliver", "tensorflow",
        TENSORFLOW + "; uncompressed, one worker process"),
    Way(OURS, "**PBA engine**, cold", ("jpeg",), "cold",
        remark="one image after the other into one buffer"),
    Way("pba-cached", "**PBA engine**, decoded pixels cached", ("jpeg",), "cached",
        remark="one image after the other into one buffer; decoded pixels of whole images"),
    Way("pillow-best", "Pillow at its best", ("jpeg",), "from_jpeg:pillow", "pillow"),
    Way("opencv", "OpenCV and NumPy by hand", ("jpeg",), "from_jpeg:opencv", "opencv"),
    Way("albumentations", "albumentations", ("jpeg",), "from_jpeg:albumentations", "albumentations"),
    Way("torchvision", "torchvision v2, image by image", ("jpeg",), "from_jpeg:torchvision", "torch"),
    Way("dali", "DALI, its CPU operators", ("jpeg",), "dali_peer:jpeg", "dali",
        "decodes the crop only, at full resolution"),
    Way("tf", "tf.data, in process", ("jpeg",), "tf_data:jpeg", "tensorflow",
        "decodes the crop only, at full resolution"),
    Way("bare-decode", "libjpeg-turbo's bare full decode, nothing else", ("jpeg",), "from_jpeg:bare", "jpeg",
        "500x375 RGB; no crop, no resize, no policy"),
]
WORKS = {
    "32": "(a) 32x32, policy and base",
    "224": "(b) 224x224, policy and base",
    "jpeg": "(c) 500x375 JPEG to 224x224, policy and flip",
    "stream": "(d) untouched 32x32 batches to one Python process; TCP where nothing is said",
    "deliver": "(e) (a) delivered to one Python process, 2 cores in all",
}
# What the design asks for: images per second of a way of ours, or how many times a peer's rate.
BARS = {
    ("32", OURS): 1_000_000, ("32", "opencv"): 10, ("32", "pillow-best"): 25,
    ("224", OURS): 26_000, ("224", "opencv"): 2,
    ("jpeg", "opencv"): 1.5, ("jpeg", "bare-decode"): 1, ("jpeg", "pba-cached"): 26_000,
    ("stream", "raw"): 0.9, ("stream", "raw-hot"): 0.9, ("stream", "raw-unix"): 0.9,
    ("deliver", OURS): 400_000,
    # Of the best of them, and so of all.
    **{("deliver", f"loader-{peer}-{workers}"): 5 for peer in ("pillow", "opencv") for workers in (1, 2)},
    ("deliver", "tf-service"): 5,
}
# Peers that start a server or worker of their own, which has the cores that our server has.
SERVED = ("flight", "tf-service", "loader-untouched")
# Where the pixels of single ops are compared with ours.
COMPARED = ("32", "224")
# Of wall time where several processes work at once, which is what a trainer waits for.
BY_WALL = ("stream", "deliver")
