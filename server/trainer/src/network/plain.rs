//! Networks too plain to be wrong: loops over numbers in double precision, forward and backward, one image,
//! channel and pixel after the other. The oracle of the networks in `models/`.

use std::sync::Arc;

use pba_datasets::Normalization;
use pba_schedules::rng::{Address, Purpose};
use tch::{Device, Kind, Tensor};

use crate::network::layers::{Builder, Shape};
use crate::network::model::{Body, Model};
use crate::network::net::Net;
use crate::network::rows::Rows;
use crate::network::shake::Shake;

const NORMALIZATION: Normalization = Normalization { mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3] };
const EPSILON: f64 = 1e-5;

/// Numbers by image, channel, row and column.
#[derive(Clone)]
struct Value {
    size: [usize; 4],
    numbers: Vec<f64>,
}

impl Value {
    fn zeros(size: [usize; 4]) -> Value {
        Value { size, numbers: vec![0.0; size.iter().product()] }
    }

    fn at(&self, [n, c, y, x]: [usize; 4]) -> usize {
        let [_, channels, height, width] = self.size;
        ((n * channels + c) * height + y) * width + x
    }

    /// Every place, in order.
    fn places(&self) -> impl Iterator<Item = [usize; 4]> + use<> {
        let [images, channels, height, width] = self.size;
        (0..images).flat_map(move |n| {
            (0..channels)
                .flat_map(move |c| (0..height).flat_map(move |y| (0..width).map(move |x| [n, c, y, x])))
        })
    }
}

/// How the gradient of a value comes back to what it was made of: from its own gradient to theirs.
type Backward = Box<dyn Fn(&[f64], &mut [Vec<f64>])>;

/// A network while a batch goes through: every value, and how gradients come back.
pub(crate) struct Plain {
    values: Vec<Value>,
    backward: Vec<Option<Backward>>,
    /// Positions of the convolutions' weights and of the scales and shifts, in the order of the layers.
    matrices: Vec<usize>,
    vectors: Vec<usize>,
    /// Running means and variances, and what they become.
    statistics: Vec<Vec<f64>>,
    /// By image and block: the weight forward, and the one backward.
    weights: Vec<Vec<[f64; 2]>>,
    training: bool,
    /// Layers so far.
    convs: usize,
    norms: usize,
}

impl Plain {
    fn push(&mut self, value: Value, backward: Option<Backward>) -> usize {
        self.values.push(value);
        self.backward.push(backward);
        self.values.len() - 1
    }

    pub(crate) fn channels(&self, x: usize) -> usize {
        self.values[x].size[1]
    }

    /// A convolution to `out` channels with the next weights, padded to keep the size.
    pub(crate) fn conv(&mut self, x: usize, out: usize, side: usize, stride: usize) -> usize {
        let weights = self.matrices[self.convs];
        self.convs += 1;
        let (input, kernel) = (self.values[x].clone(), self.values[weights].clone());
        let [images, channels, height, width] = input.size;
        assert_eq!(kernel.size, [out, channels, side, side], "convolution {}", self.convs);
        let mut output = Value::zeros([images, out, height.div_ceil(stride), width.div_ceil(stride)]);
        // Every product of a pixel and a weight, as places in output, input and kernel.
        let mut products = Vec::new();
        for place in output.places() {
            let [n, o, y, x] = place;
            for c in 0..channels {
                for (ky, kx) in (0..side).flat_map(|ky| (0..side).map(move |kx| (ky, kx))) {
                    let (y, x) =
                        ((y * stride + ky) as isize - (side / 2) as isize, (x * stride + kx) as isize);
                    let x = x - (side / 2) as isize;
                    if (0..height as isize).contains(&y) && (0..width as isize).contains(&x) {
                        let pixel = input.at([n, c, y as usize, x as usize]);
                        products.push((output.at(place), pixel, kernel.at([o, c, ky, kx])));
                    }
                }
            }
        }
        for &(to, pixel, weight) in &products {
            output.numbers[to] += input.numbers[pixel] * kernel.numbers[weight];
        }
        let backward = move |gradient: &[f64], gradients: &mut [Vec<f64>]| {
            for &(to, pixel, weight) in &products {
                gradients[x][pixel] += gradient[to] * kernel.numbers[weight];
                gradients[weights][weight] += gradient[to] * input.numbers[pixel];
            }
        };
        self.push(output, Some(Box::new(backward)))
    }

    /// Batch normalisation with the next scales and shifts.
    pub(crate) fn norm(&mut self, x: usize) -> usize {
        let layer = self.norms;
        self.norms += 1;
        let [scales, shifts] = [0, 1].map(|which| self.vectors[2 * layer + which]);
        let input = self.values[x].clone();
        let [images, channels, height, width] = input.size;
        assert_eq!(self.values[scales].numbers.len(), channels, "batch normalisation {}", self.norms);
        let count = (images * height * width) as f64;
        let (mut means, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
        for place in input.places() {
            means[place[1]] += input.numbers[input.at(place)] / count;
        }
        for place in input.places() {
            squares[place[1]] += (input.numbers[input.at(place)] - means[place[1]]).powi(2) / count;
        }
        if self.training {
            for channel in 0..channels {
                let unbiased = squares[channel] * count / (count - 1.0);
                for (which, new) in [means[channel], unbiased].into_iter().enumerate() {
                    let running = &mut self.statistics[2 * layer + which][channel];
                    *running = 0.9 * *running + 0.1 * new;
                }
            }
        } else {
            means.clone_from(&self.statistics[2 * layer]);
            squares.clone_from(&self.statistics[2 * layer + 1]);
        }
        let (scale, shift) = (self.values[scales].numbers.clone(), self.values[shifts].numbers.clone());
        let deviations: Vec<f64> = squares.iter().map(|square| (square + EPSILON).sqrt()).collect();
        let mut normal = input.clone();
        let mut output = input.clone();
        for place in input.places() {
            let (at, c) = (input.at(place), place[1]);
            normal.numbers[at] = (input.numbers[at] - means[c]) / deviations[c];
            output.numbers[at] = normal.numbers[at] * scale[c] + shift[c];
        }
        let backward = move |gradient: &[f64], gradients: &mut [Vec<f64>]| {
            let (mut sums, mut products) = (vec![0.0; channels], vec![0.0; channels]);
            for place in normal.places() {
                let (at, c) = (normal.at(place), place[1]);
                sums[c] += gradient[at];
                products[c] += gradient[at] * normal.numbers[at];
            }
            for place in normal.places() {
                let (at, c) = (normal.at(place), place[1]);
                let centred = gradient[at] - sums[c] / count - normal.numbers[at] * products[c] / count;
                gradients[x][at] += scale[c] / deviations[c] * centred;
            }
            for channel in 0..channels {
                gradients[scales][channel] += products[channel];
                gradients[shifts][channel] += sums[channel];
            }
        };
        self.push(output, Some(Box::new(backward)))
    }

    pub(crate) fn relu(&mut self, x: usize) -> usize {
        let input = self.values[x].clone();
        let numbers = input.numbers.iter().map(|number| number.max(0.0)).collect();
        let output = Value { numbers, ..input };
        let backward = move |gradient: &[f64], gradients: &mut [Vec<f64>]| {
            for (at, number) in input.numbers.iter().enumerate() {
                gradients[x][at] += if *number > 0.0 { gradient[at] } else { 0.0 };
            }
        };
        self.push(output, Some(Box::new(backward)))
    }

    pub(crate) fn add(&mut self, x: usize, y: usize) -> usize {
        let (one, other) = (self.values[x].clone(), &self.values[y]);
        assert_eq!(one.size, other.size);
        let numbers = one.numbers.iter().zip(&other.numbers).map(|(one, other)| one + other).collect();
        let backward = move |gradient: &[f64], gradients: &mut [Vec<f64>]| {
            for (at, gradient) in gradient.iter().enumerate() {
                gradients[x][at] += gradient;
                gradients[y][at] += gradient;
            }
        };
        self.push(Value { numbers, ..one }, Some(Box::new(backward)))
    }

    /// Each image times its weight in a block, changed by `change`: one weight forward and another one backward
    /// in training, the expected one in evaluation.
    pub(crate) fn weighted(
        &mut self,
        x: usize,
        block: usize,
        expected: f64,
        change: impl Fn(f64) -> f64,
    ) -> usize {
        let mut output = self.values[x].clone();
        let weights = |image: usize| if self.training { self.weights[image][block] } else { [expected; 2] };
        let by_image: Vec<[f64; 2]> = (0..output.size[0]).map(|image| weights(image).map(&change)).collect();
        let (places, value) = (output.places(), output.clone());
        for place in places {
            output.numbers[value.at(place)] *= by_image[place[0]][0];
        }
        let backward = move |gradient: &[f64], gradients: &mut [Vec<f64>]| {
            for place in value.places() {
                gradients[x][value.at(place)] += gradient[value.at(place)] * by_image[place[0]][1];
            }
        };
        self.push(output, Some(Box::new(backward)))
    }

    /// An image of `channels` channels whose pixels are those of `x` at the channel, row and column that `from`
    /// gives, and zeros where `x` has none.
    pub(crate) fn pick(
        &mut self,
        x: usize,
        channels: usize,
        from: impl Fn(usize, usize, usize) -> (usize, usize, usize),
    ) -> usize {
        let input = &self.values[x];
        let [images, _, height, width] = input.size;
        let mut output = Value::zeros([images, channels, height, width]);
        let mut picked = Vec::new();
        for place @ [n, c, y, x] in output.places() {
            let (c, y, x) = from(c, y, x);
            if c < input.size[1] && y < height && x < width {
                picked.push((output.at(place), input.at([n, c, y, x])));
            }
        }
        for &(to, from) in &picked {
            output.numbers[to] = input.numbers[from];
        }
        let backward = move |gradient: &[f64], gradients: &mut [Vec<f64>]| {
            picked.iter().for_each(|&(to, from)| gradients[x][from] += gradient[to]);
        };
        self.push(output, Some(Box::new(backward)))
    }

    /// The channels of one image after those of another.
    pub(crate) fn cat(&mut self, x: usize, y: usize) -> usize {
        let before = self.channels(x);
        let channels = before + self.channels(y);
        let first = self.pick(x, channels, |channel, row, column| (channel, row, column));
        let second =
            self.pick(y, channels, |channel, row, column| (channel.wrapping_sub(before), row, column));
        self.add(first, second)
    }

    /// The mean of every two by two pixels; of fewer in an odd last row or column.
    pub(crate) fn mean_of_pairs(&mut self, x: usize) -> usize {
        let input = &self.values[x];
        let [images, channels, height, width] = input.size;
        let mut output = Value::zeros([images, channels, height.div_ceil(2), width.div_ceil(2)]);
        let mut parts = Vec::new();
        for place @ [n, c, y, x] in input.places() {
            let count = (height - y / 2 * 2).min(2) * (width - x / 2 * 2).min(2);
            parts.push((output.at([n, c, y / 2, x / 2]), input.at(place), 1.0 / count as f64));
        }
        for &(to, from, share) in &parts {
            output.numbers[to] += input.numbers[from] * share;
        }
        let backward = move |gradient: &[f64], gradients: &mut [Vec<f64>]| {
            parts.iter().for_each(|&(to, from, share)| gradients[x][from] += gradient[to] * share);
        };
        self.push(output, Some(Box::new(backward)))
    }

    /// The mean over all pixels, then the last layer: logits by image.
    fn head(&self, x: usize) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let input = &self.values[x];
        let [images, channels, height, width] = input.size;
        let mut means = vec![vec![0.0; channels]; images];
        for place in input.places() {
            means[place[0]][place[1]] += input.numbers[input.at(place)] / (height * width) as f64;
        }
        let matrix = &self.values[*self.matrices.last().unwrap()].numbers;
        let bias = &self.values[*self.vectors.last().unwrap()].numbers;
        let logit = |means: &[f64], class: usize| {
            let row = &matrix[class * channels..][..channels];
            bias[class] + row.iter().zip(means).map(|(weight, mean)| weight * mean).sum::<f64>()
        };
        let of_image = |means: &Vec<f64>| (0..bias.len()).map(|class| logit(means, class)).collect();
        (means.iter().map(of_image).collect(), means)
    }

    /// The gradient of the mean cross-entropy over the images, for every value.
    fn gradients(&self, x: usize, labels: &[i64]) -> Vec<Vec<f64>> {
        let (logits, means) = self.head(x);
        let [images, channels, height, width] = self.values[x].size;
        let mut gradients: Vec<Vec<f64>> =
            self.values.iter().map(|value| vec![0.0; value.numbers.len()]).collect();
        let (matrix, bias) = (*self.matrices.last().unwrap(), *self.vectors.last().unwrap());
        for image in 0..images {
            let total: f64 = logits[image].iter().map(|logit| logit.exp()).sum();
            for (class, logit) in logits[image].iter().enumerate() {
                let is_label = labels[image] == class as i64;
                let gradient = (logit.exp() / total - f64::from(u8::from(is_label))) / images as f64;
                gradients[bias][class] += gradient;
                for channel in 0..channels {
                    let weight = class * channels + channel;
                    gradients[matrix][weight] += gradient * means[image][channel];
                    let to_pixel = gradient * self.values[matrix].numbers[weight] / (height * width) as f64;
                    for pixel in 0..height * width {
                        gradients[x][(image * channels + channel) * height * width + pixel] += to_pixel;
                    }
                }
            }
        }
        for position in (0..self.values.len()).rev() {
            if let Some(backward) = &self.backward[position] {
                let gradient = std::mem::take(&mut gradients[position]);
                backward(&gradient, &mut gradients);
            }
        }
        gradients
    }
}

/// The numbers of each entry of a layout, by channel, input, row and column.
fn entries(layout: &crate::network::layers::Layout, row: &Tensor) -> Vec<Value> {
    let size = |shape: Shape| match shape {
        Shape::Conv { out, input, side } => [out, input, side, side],
        Shape::Channels(channels) => [channels, 1, 1, 1],
        Shape::Matrix { out, input } => [out, input, 1, 1],
    };
    let views = layout.views(row, 1);
    let entry = |(view, shape): (&Tensor, Shape)| Value {
        size: size(shape).map(|side| side as usize),
        numbers: Vec::try_from(view.contiguous().view([-1])).unwrap(),
    };
    views.iter().zip(layout.entries.iter().map(|entry| entry.shape)).map(entry).collect()
}

/// Checks that a network of five classes evaluates, and takes a step, as its plain implementation, which goes
/// from normalised images to what comes before the average over the pixels.
#[track_caller]
pub(crate) fn check(
    declare: impl FnOnce(&mut Builder) -> Body,
    side: i64,
    mut plain: impl FnMut(&mut Plain, usize) -> usize,
) {
    const LR: f64 = 0.05;
    let (images, classes) = (4, 5);
    tch::manual_seed(3);
    tch::set_num_threads(1);
    let model = Arc::new(Model::new(declare));
    let kinds = (Kind::Double, Kind::Double);
    let mut net = Net::new(&model, 1, NORMALIZATION, 0.0, Device::Cpu, kinds);
    // Away from the initial values, of which many are 0 or 1.
    let initial = model.initial_rows(9).map(|tensor| tensor.to_kind(Kind::Double));
    let moved = |tensor: &Tensor| tensor + tensor.rand_like() * 0.3;
    let (parameters, statistics) = (moved(&initial.parameters), moved(&initial.statistics));
    net.set_rows(&Rows { parameters, statistics, momentum: initial.momentum });

    let pixels = Tensor::randint(256, [1, images, side, side, 3], (Kind::Uint8, Device::Cpu));
    let labels = Tensor::randint(classes, [1, images], (Kind::Int64, Device::Cpu));
    let shakes = &model.layers.shakes;
    let address = |item| Address { seed: 4, purpose: Purpose::Shake, epoch: 1, item };
    let weights: Vec<f32> =
        (0..images as u64).flat_map(|image| Shake::draw(shakes, address(image))).collect();
    let by_image = weights
        .chunks(2 * shakes.len())
        .map(|image| image.chunks(2).map(|weights| [f64::from(weights[0]), f64::from(weights[1])]).collect());
    let by_image: Vec<Vec<[f64; 2]>> = by_image.collect();
    net.set_shakes(&Tensor::from_slice(&weights).view([1, images, shakes.len() as i64, 2]));

    let normalized = |[n, c, y, x]: [usize; 4]| {
        let byte = pixels.int64_value(&[0, n as i64, y as i64, x as i64, c as i64]) as f64;
        // The network holds both in single precision.
        let scale = (1.0 / (255.0 * NORMALIZATION.std[c])) as f32;
        let shift = (-NORMALIZATION.mean[c] / NORMALIZATION.std[c]) as f32;
        byte * f64::from(scale) + f64::from(shift)
    };
    let begin = |net: &Net, training| {
        let rows = net.rows();
        let (row, layers) = (rows.parameters.view([-1]), &model.layers);
        let matrices = entries(&layers.matrices, &row.narrow(0, 0, layers.matrices.len));
        let vectors = entries(&layers.vectors, &row.narrow(0, layers.matrices.len, layers.vectors.len));
        let statistics = entries(&layers.statistics, &rows.statistics.view([-1]));
        let mut tape = Plain {
            values: Vec::new(),
            backward: Vec::new(),
            matrices: (0..matrices.len()).collect(),
            vectors: (matrices.len()..matrices.len() + vectors.len()).collect(),
            statistics: statistics.into_iter().map(|value| value.numbers).collect(),
            weights: by_image.clone(),
            training,
            convs: 0,
            norms: 0,
        };
        for value in matrices.into_iter().chain(vectors) {
            tape.push(value, None);
        }
        let mut input = Value::zeros([images as usize, 3, side as usize, side as usize]);
        for place in input.places() {
            let at = input.at(place);
            input.numbers[at] = normalized(place);
        }
        let input = tape.push(input, None);
        (tape, input)
    };
    let compare = |what: &str, found: &[f64], expected: &[f64]| {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-9 * (1.0 + expected.abs()),
                "{what}: {found}, not {expected}"
            );
        }
    };
    let logits = |net: &mut Net, training| -> Vec<f64> {
        Vec::try_from(net.logits(&pixels, training).view([-1]).detach()).unwrap()
    };

    let (mut tape, input) = begin(&net, false);
    let last = plain(&mut tape, input);
    assert_eq!((tape.convs + 1, 2 * tape.norms + 1), (tape.matrices.len(), tape.vectors.len()));
    let evaluated = logits(&mut net, false);
    compare("logits in evaluation", &evaluated, &tape.head(last).0.concat());

    let (mut tape, input) = begin(&net, true);
    let last = plain(&mut tape, input);
    let trained = tape.head(last).0.concat();
    assert!(
        trained.iter().zip(&evaluated).all(|(one, other)| (one - other).abs() > 1e-6),
        "nothing is random"
    );
    let gradients = tape.gradients(last, &Vec::<i64>::try_from(labels.view([-1])).unwrap());
    net.set_lr(LR);
    net.step(&pixels, &labels);
    let loss = {
        let label = |image: usize| labels.int64_value(&[0, image as i64]) as usize;
        let loss = |(image, logits): (usize, &Vec<f64>)| {
            logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[label(image)]
        };
        tape.head(last).0.iter().enumerate().map(loss).sum::<f64>() / images as f64
    };
    compare("loss in training", &[net.take_loss_sums()[0].into()], &[f64::from(loss as f32)]);
    let (after, _) = begin(&net, true);
    for (layer, (found, expected)) in after.statistics.iter().zip(&tape.statistics).enumerate() {
        compare(&format!("statistic {layer}"), found, expected);
    }
    let trainable = || tape.matrices.iter().chain(&tape.vectors).copied();
    let norm = trainable().flat_map(|at| &gradients[at]).map(|number| number * number).sum::<f64>().sqrt();
    let factor = (5.0 / (norm + 1e-6)).min(1.0);
    for at in trainable() {
        // The first step of SGD with momentum: p - lr * (g + 0.9 g).
        let stepped = tape.values[at].numbers.iter().zip(&gradients[at]);
        let stepped: Vec<f64> =
            stepped.map(|(number, gradient)| number - LR * 1.9 * factor * gradient).collect();
        compare(&format!("parameter {at}"), &after.values[at].numbers, &stepped);
        let moved = |(one, other): (&f64, &f64)| (one - other).abs() > 1e-7;
        // A shift that only batch normalisation follows, in every path, moves nothing, and is not moved.
        let moves = tape.vectors.contains(&at) || stepped.iter().zip(&tape.values[at].numbers).any(moved);
        assert!(moves, "parameter {at} stands still");
    }
}
