//! Mean and standard deviation of pixels.

/// Sums per channel, in integers, so that the order of the rows does not matter.
///
/// Nor does it matter how rows are divided among threads, whose sums are [added](Moments::add).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    pixels: u64,
    sum: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    /// Adds the pixels of one image.
    pub(crate) fn push(&mut self, pixels: &[u8]) {
        // An image has at most 2^24 pixels, so its sum of values fits 32 bits.
        let (mut sum, mut squares) = ([0_u32; 3], [0_u64; 3]);
        for pixel in pixels.as_chunks::<3>().0 {
            for channel in 0..3 {
                let value = u32::from(pixel[channel]);
                sum[channel] += value;
                squares[channel] += u64::from(value * value);
            }
        }
        self.pixels += (pixels.len() / 3) as u64;
        for channel in 0..3 {
            self.sum[channel] += u64::from(sum[channel]);
            self.squares[channel] += squares[channel];
        }
    }

    /// Adds the sums of another.
    pub(crate) fn add(&mut self, other: &Moments) {
        self.pixels += other.pixels;
        for channel in 0..3 {
            self.sum[channel] += other.sum[channel];
            self.squares[channel] += other.squares[channel];
        }
    }

    /// Mean and standard deviation of each channel, as fractions of 255.
    pub(crate) fn mean_and_std(&self) -> ([f64; 3], [f64; 3]) {
        let n = self.pixels as f64;
        let mean = self.sum.map(|sum| sum as f64 / n / 255.0);
        let std = std::array::from_fn(|channel| {
            let (sum, squares) = (u128::from(self.sum[channel]), u128::from(self.squares[channel]));
            let numerator = u128::from(self.pixels) * squares - sum * sum;
            (numerator as f64).sqrt() / n / 255.0
        });
        (mean, std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_definition() {
        let pixels: Vec<u8> = (0..300_u32).map(|i| (i * i % 251) as u8).collect();
        let mut moments = Moments::default();
        pixels.chunks(30).for_each(|image| moments.push(image));
        let (mean, std) = moments.mean_and_std();
        for channel in 0..3 {
            let values: Vec<f64> =
                pixels.iter().skip(channel).step_by(3).map(|&v| f64::from(v) / 255.0).collect();
            let m = values.iter().sum::<f64>() / 100.0;
            let s = (values.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / 100.0).sqrt();
            assert!((mean[channel] - m).abs() < 1e-12 && (std[channel] - s).abs() < 1e-12);
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let pixels: Vec<u8> = (0..300_u32).map(|i| (i * i % 251) as u8).collect();
        let (mut whole, mut sum) = (Moments::default(), Moments::default());
        whole.push(&pixels);
        for part in pixels.chunks(90) {
            let mut moments = Moments::default();
            moments.push(part);
            sum.add(&moments);
        }
        assert_eq!(whole.mean_and_std(), sum.mean_and_std());
    }
}
