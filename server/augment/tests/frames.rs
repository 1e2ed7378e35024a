//! Rendering from sources of any size: parts, reductions, and what is refused.

use pba_augment::rng::{Address, Purpose, below};
use pba_augment::{
    Base, Frame, ImageShape, Level, OpCounts, PixelBox, Policies, Recipe, RecipeSpec, Scratch, Source,
    render_image, render_source, resize,
};
use pba_schedules::{Digest, library};
use rand::Rng;

fn noise(shape: ImageShape, seed: u64) -> Vec<u8> {
    let mut rng = Address { seed, purpose: Purpose::Dataset, epoch: 0, item: 0 }.stream();
    (0..shape.rgb_bytes()).map(|_| rng.next_u32() as u8).collect()
}

fn spec(base: &str, side: u32) -> RecipeSpec {
    RecipeSpec {
        policies: Policies::One(library::cifar10_pba().at(199, 200).unwrap().clone()),
        base: base.parse().unwrap(),
        seed: 7,
        epoch: 199,
        mean: [125, 123, 114],
        shape: ImageShape { height: side, width: side },
    }
}

/// The pixels of a box of an image.
fn cut(shape: ImageShape, pixels: &[u8], part: PixelBox) -> Vec<u8> {
    let row = |row: u32| {
        let start = 3 * (row * shape.width + part.left) as usize;
        &pixels[start..start + 3 * part.width as usize]
    };
    (part.top..part.top + part.height).flat_map(row).copied().collect()
}

fn rendered(
    recipe: &Recipe,
    sample: u64,
    source: ImageShape,
    pixels: &Source,
    scratch: &mut Scratch,
) -> Vec<u8> {
    let mut out = vec![0; recipe.shape().rgb_bytes()];
    let view = recipe.view(sample, source);
    render_source(recipe, sample, &view, pixels, &mut out, scratch, &mut OpCounts::default());
    out
}

/// Whether the whole image was decoded, or only the part that is needed, or something between, and
/// what was rendered before, must not matter.
#[test]
fn a_part_gives_the_same_pixels_as_the_whole() {
    let mut scratch = Scratch::new();
    for (number, base) in ["random_resized_crop:56,flip", "resize:64,center_crop:56,pad_crop:4"]
        .iter()
        .cycle()
        .take(60)
        .enumerate()
    {
        let recipe = Recipe::new(spec(base, 56)).unwrap();
        let mut rng = Address { seed: 1, purpose: Purpose::Dataset, epoch: 0, item: number as u64 }.stream();
        let mut side = || 1 + below(rng.next_u32(), 300);
        let source = ImageShape { height: side(), width: side() };
        let view = recipe.view(number as u64, source);
        for reduction in [1, 2, 4, 8] {
            let reduced = ImageShape {
                height: source.height.div_ceil(reduction),
                width: source.width.div_ceil(reduction),
            };
            let pixels = noise(reduced, number as u64);
            let needed = view.pixels(reduction);
            assert!(PixelBox::whole(reduced).contains(needed), "{needed:?} of {reduced:?}");
            // Part of the way to the edges of the image.
            let (left, top) = (needed.left / 2, needed.top / 3);
            let between = PixelBox {
                left,
                top,
                width: (needed.left + needed.width + reduced.width).div_ceil(2) - left,
                height: reduced.height - top,
            };
            let render = |place: PixelBox, scratch: &mut Scratch| {
                let part = cut(reduced, &pixels, place);
                rendered(&recipe, number as u64, source, &Source { pixels: &part, place, reduction }, scratch)
            };
            let whole = render(PixelBox::whole(reduced), &mut Scratch::with_level(Level::PORTABLE));
            for place in [needed, between] {
                assert_eq!(
                    render(place, &mut scratch),
                    whole,
                    "{base} of {source:?} by {reduction}, {place:?}"
                );
            }
        }
    }
}

#[test]
fn the_frame_comes_before_the_policy() {
    let recipe = Recipe::new(spec("random_resized_crop:40,flip,cutout:10", 40)).unwrap();
    let plain = Recipe::new(spec("flip,cutout:10", 40)).unwrap();
    let source = ImageShape { height: 90, width: 70 };
    let pixels = noise(source, 1);
    let whole = Source { pixels: &pixels, place: PixelBox::whole(source), reduction: 1 };
    let mut scratch = Scratch::new();
    for sample in 0..40 {
        let (mut framed, mut expected) = (vec![0; 40 * 40 * 3], vec![0; 40 * 40 * 3]);
        resize(&recipe.view(sample, source), &whole, &mut framed, &mut scratch);
        render_image(&plain, sample, &framed, &mut expected, &mut scratch, &mut OpCounts::default());
        assert_eq!(rendered(&recipe, sample, source, &whole, &mut scratch), expected);
    }
}

#[test]
fn a_box_of_the_output_s_size_is_a_copy() {
    let source = ImageShape { height: 40, width: 56 };
    let pixels = noise(source, 1);
    let base = Base { frame: Frame::Resize { shorter: 40, crop: 40 }, ..Base::IDENTITY };
    let recipe = Recipe::new(RecipeSpec { policies: Policies::None, base, ..spec("identity", 40) });
    let whole = Source { pixels: &pixels, place: PixelBox::whole(source), reduction: 1 };
    let expected = cut(source, &pixels, PixelBox { left: 8, top: 0, width: 40, height: 40 });
    assert_eq!(rendered(&recipe.unwrap(), 0, source, &whole, &mut Scratch::new()), expected);
    // And an image that is shown as it is.
    let recipe =
        Recipe::new(RecipeSpec { policies: Policies::None, shape: source, ..spec("identity", 40) }).unwrap();
    assert_eq!(rendered(&recipe, 0, source, &whole, &mut Scratch::new()), pixels);
}

#[test]
fn reductions_leave_at_least_the_output_s_size() {
    let recipe = Recipe::new(spec("random_resized_crop:32", 32)).unwrap();
    let mut seen = [0; 9];
    for sample in 0..500 {
        let view = recipe.view(sample, ImageShape { height: 300, width: 280 });
        let reduction = view.reduction();
        let fits = |r: u32| view.width >= f64::from(32 * r) && view.height >= f64::from(32 * r);
        assert!(reduction == 1 || fits(reduction));
        assert!(reduction == 8 || !fits(2 * reduction));
        seen[reduction as usize] += 1;
    }
    assert!(seen[2] > 0 && seen[4] > 0 && seen[8] > 0, "{seen:?}");
}

#[test]
fn frames_of_another_shape_are_refused() {
    let refuse = |spec: RecipeSpec, says: &str| {
        let error = Recipe::new(spec).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    };
    refuse(
        spec("random_resized_crop:224,flip", 32),
        "images of 32 rows and 32 columns do not come out of random_resized_crop:224; allowed are 224 rows and 224 columns",
    );
    let shape = ImageShape { height: 224, width: 225 };
    refuse(
        RecipeSpec { shape, ..spec("resize:256,center_crop:224", 224) },
        "resize:256,center_crop:224; allowed are 224",
    );
}

/// Pixels that went out once go out for ever.
#[test]
fn framed_pixels_are_pinned() {
    let source = ImageShape { height: 375, width: 500 };
    let pixels = noise(source, 5);
    for level in Level::available() {
        let mut scratch = Scratch::with_level(level);
        let mut digest = |base: &str| {
            let recipe = Recipe::new(spec(base, 224)).unwrap();
            let whole = Source { pixels: &pixels, place: PixelBox::whole(source), reduction: 1 };
            let rows: Vec<_> =
                (0..20).map(|sample| rendered(&recipe, sample, source, &whole, &mut scratch)).collect();
            Digest::of(rows.concat()).to_string()
        };
        assert_eq!(
            digest("random_resized_crop:224,flip"),
            "2891e07a8b5e747569aab744ecb8536e71c3186d1a5452e695ed1bac1d956f03"
        );
        assert_eq!(
            digest("resize:256,center_crop:224"),
            "6f3faafb872c40a91dd7536aab24e0552fa05b8cf64abc00eea2869e47b349a2"
        );
    }
}
