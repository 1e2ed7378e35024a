//! Folders of images, by split and class.

use std::os::unix::fs::symlink;
use std::path::Path;

use pba_datasets::{Dataset, SplitName};

use crate::{assert_holds, encoded_image, failure, label_of, noise, opened, shape, split};

/// Pixels of a grey-free image, from a seed, and the image as PNG.
fn image(seed: u64, height: usize, width: usize) -> (Vec<u8>, Vec<u8>) {
    let pixels = noise(seed, height * width * 3);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    (pixels, bytes)
}

struct Folder {
    root: tempfile::TempDir,
    cache: tempfile::TempDir,
}

impl Folder {
    fn new() -> Folder {
        Folder { root: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() }
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let file = self.root.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// Writes one image of 2x3 pixels to each path, and gives their pixels.
    fn images(&self, paths: &[&str]) -> Vec<Vec<u8>> {
        let write = |(seed, path): (usize, &&str)| {
            let (pixels, bytes) = image(seed as u64, 2, 3);
            self.write(path, &bytes);
            pixels
        };
        paths.iter().enumerate().map(write).collect()
    }

    #[track_caller]
    fn open(&self) -> Dataset {
        opened(self.root.path(), self.cache.path()).unwrap()
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }
}

#[test]
fn splits_and_classes_are_named_by_their_folders() {
    let folder = Folder::new();
    let pixels = folder.images(&[
        "train/ant/1.png",
        "train/ant/2.PNG",
        "train/cow/a/x.png",
        "train/cow/a-b/x.png",
        "train/cow/z.png",
        "val/cow/1.png",
        "test/zebra/1.png",
    ]);
    folder.write("train/ant/notes.txt", b"no image");
    folder.write("train/ant/._1.png", b"hidden");
    folder.write("README.md", b"no image");
    for _ in ["packed", "cached"] {
        let dataset = folder.open();
        assert_eq!(
            (dataset.format, dataset.classes()),
            ("folder", &["ant", "cow", "zebra"].map(String::from)[..])
        );
        let train = split(&dataset, SplitName::Train);
        // In a class: its folders in the order of their names as text, where "cow/a-b" < "cow/a/".
        let order = [0, 1, 4, 2, 3].map(|i: usize| pixels[i].clone());
        assert_holds(&train, &order, &[0, 0, 1, 1, 1]);
        assert_holds(&split(&dataset, SplitName::Val), &pixels[5..6], &[1]);
        assert_holds(&split(&dataset, SplitName::Test), &pixels[6..], &[2]);
    }
}

#[test]
fn without_splits_all_is_for_training() {
    let folder = Folder::new();
    // The class `train` is one of vehicles: it has no folders in it.
    let pixels = folder.images(&["bus/1.png", "car/1.png", "train/1.png"]);
    let dataset = folder.open();
    assert_eq!(dataset.classes(), ["bus", "car", "train"]);
    assert_holds(&split(&dataset, SplitName::Train), &pixels, &[0, 1, 2]);
}

#[test]
fn images_of_different_sizes_are_kept_as_they_are() {
    let folder = Folder::new();
    folder.images(&["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"]);
    let (_, other) = image(9, 5, 4);
    folder.write("test/a/0.png", &other);
    let dataset = folder.open();
    assert_eq!(split(&dataset, SplitName::Train).shape(), Some(shape(2, 3)));
    let test = split(&dataset, SplitName::Test);
    let images = [0, 1].map(|row| encoded_image(&test, row));
    assert_eq!((images[0].1, images[1].1, &images[0].0), (shape(5, 4), shape(2, 3), &other));
    assert_eq!([0, 1, 2].map(|row| label_of(&test, row)), [0, 0, 1]);
}

#[test]
fn what_changes_is_imported_anew() {
    let folder = Folder::new();
    folder.images(&["train/a/1.png", "train/b/1.png"]);
    let before = folder.open().digest();
    assert_eq!(folder.open().digest(), before);
    let (_, other) = image(7, 2, 3);
    folder.write("train/b/2.png", &other);
    let after = folder.open().digest();
    assert_ne!(after, before);
    std::fs::create_dir(folder.path("train/c")).unwrap();
    assert_eq!(folder.open().classes(), ["a", "b", "c"], "a class may have no image yet");
}

#[test]
fn bad_files_are_named() {
    let folder = Folder::new();
    folder.images(&["train/a/1.png", "train/b/1.png", "test/a/1.png"]);
    folder.write("train/a/2.jpg", b"\xff\xd8\xff\xd9");
    let message = failure(&folder.open(), SplitName::Train);
    assert!(message.starts_with("train/a/2.jpg: image does not decode as JPEG: "), "{message}");
    folder.write("train/a/0.webp", b"RIFF");
    assert_eq!(
        failure(&folder.open(), SplitName::Train),
        "train/a/0.webp: image begins with 52 49 46 46; formats that are read are JPEG and PNG (the first of 2 bad images among 4)"
    );
    split(&folder.open(), SplitName::Test);
}

#[test]
fn folders_that_are_no_dataset_say_so() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("some/where")).unwrap();
    folder.write("picture.png", &image(0, 2, 3).1);
    let error = opened(folder.root.path(), folder.cache.path()).unwrap_err().to_string();
    assert!(error.contains("folders of JPEG and PNG images (train/CLASS/"), "{error}");

    folder.images(&["train/a/1.png", "val/1.png", "valid/a/1.png"]);
    std::fs::create_dir_all(folder.path("test/a")).unwrap();
    let dataset = folder.open();
    split(&dataset, SplitName::Train);
    assert_eq!(failure(&dataset, SplitName::Val), "valid: a second folder of split val");
    assert_eq!(failure(&dataset, SplitName::Test), "test: no rows");
    std::fs::remove_dir_all(folder.path("valid")).unwrap();
    assert_eq!(
        failure(&folder.open(), SplitName::Val),
        "val: expected a folder for each class in it; there is none"
    );
}

#[test]
fn links_are_followed_within_the_dataset_and_refused_beyond() {
    let folder = Folder::new();
    let mut pixels = folder.images(&["train/a/1.png", "train/b/1.png", "test/a/1.png"]);
    symlink("../a/1.png", folder.path("train/b/2.png")).unwrap();
    symlink("nowhere", folder.path("train/b/notes")).unwrap();
    pixels[2] = pixels[0].clone();
    let dataset = folder.open();
    assert_holds(&split(&dataset, SplitName::Train), &pixels, &[0, 1, 1]);

    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.png"), image(3, 2, 3).1).unwrap();
    symlink(outside.path().join("secret.png"), folder.path("train/b/3.png")).unwrap();
    let message = failure(&folder.open(), SplitName::Train);
    assert!(message.starts_with("train/b/3.png: a link that leads out of the dataset, to "), "{message}");
    split(&folder.open(), SplitName::Test);
    std::fs::remove_file(folder.path("train/b/3.png")).unwrap();
    symlink(outside.path(), folder.path("train/c")).unwrap();
    let message = failure(&folder.open(), SplitName::Train);
    assert!(message.starts_with("train/c: a link that leads out of the dataset, to "), "{message}");
    std::fs::remove_file(folder.path("train/c")).unwrap();
    // In a circle: it ends, with an error.
    symlink("..", folder.path("train/a/up")).unwrap();
    let message = failure(&folder.open(), SplitName::Train);
    assert!(message.contains("more than 8 folders deep in a class"), "{message}");
}

#[test]
fn a_pipe_named_as_an_image_is_no_image() {
    let folder = Folder::new();
    let pixels = folder.images(&["a/1.png", "b/1.png"]);
    let pipe = std::process::Command::new("mkfifo").arg(folder.path("a/2.png")).status().unwrap();
    assert!(pipe.success());
    assert_holds(&split(&folder.open(), SplitName::Train), &pixels, &[0, 1]);
    assert!(Path::new(&folder.path("a/2.png")).exists());
}
