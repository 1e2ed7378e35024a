//! SGD over flat buffers.

use tch::{Device, Kind, Tensor};

use crate::network::layers::BLOCK;

const MOMENTUM: f64 = 0.9;
/// The gradient of a member is scaled down to this norm when it is longer.
const GRADIENT_NORM_MAX: f64 = 5.0;

/// Stochastic gradient descent as the reference has it, for all members of a network at once:
///
/// ```text
/// g  = gradient + weight_decay * p        for every parameter
/// g  = g * min(1, 5 / (|g| + 1e-6))       per member
/// m  = 0.9 * m + g
/// p  = p - lr * (g + 0.9 * m)             Nesterov
/// ```
///
/// Thirteen kernels, whatever the number of parameters and members, and nothing is read back.
#[derive(Debug)]
pub(crate) struct Sgd {
    members: i64,
    /// The order of blocks that turns a buffer into rows, one per member
    /// ([`crate::network::layers::blocks_by_member`]).
    pub(crate) blocks: Tensor,
    /// The member of each block.
    block_members: Tensor,
    weight_decay: Tensor,
    momentum: Tensor,
    /// The learning rate times -1, on the device, so that a captured step can be given another.
    minus_lr: Tensor,
}

impl Sgd {
    pub(crate) fn new(blocks: &[i64], members: i64, weight_decay: f64, device: Device) -> Sgd {
        let mut block_members = vec![0i64; blocks.len()];
        for (position, &block) in blocks.iter().enumerate() {
            block_members[block as usize] = (position / (blocks.len() / members as usize)) as i64;
        }
        let number = |value: f64| Tensor::full([0i64; 0], value, (Kind::Float, device));
        Sgd {
            members,
            blocks: Tensor::from_slice(blocks).to_device(device),
            block_members: Tensor::from_slice(&block_members).to_device(device),
            weight_decay: number(weight_decay),
            momentum: number(MOMENTUM),
            minus_lr: number(0.0),
        }
    }

    pub(crate) fn set_lr(&mut self, lr: f64) {
        let _ = self.minus_lr.fill_(-lr);
    }

    /// Moves the parameters. The gradient is used up.
    pub(crate) fn step(&self, parameters: &mut Tensor, gradient: &mut Tensor, momentum: &mut Tensor) {
        let _ = gradient.addcmul_(parameters, &self.weight_decay);
        let mut blocks = gradient.view([-1, BLOCK]);
        let squares = blocks.square().sum_dim_intlist(1, false, None::<Kind>);
        let norms = squares.index_select(0, &self.blocks).view([self.members, -1]);
        let norms = norms.sum_dim_intlist(1, false, None::<Kind>).sqrt();
        let factors = ((norms + 1e-6).reciprocal() * GRADIENT_NORM_MAX).clamp_max(1.0);
        let _ = blocks.g_mul_(&factors.index_select(0, &self.block_members).unsqueeze(1));
        let _ = momentum.g_mul_(&self.momentum);
        let _ = momentum.g_add_(gradient);
        let _ = gradient.addcmul_(momentum, &self.momentum);
        let _ = parameters.addcmul_(gradient, &self.minus_lr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.optim.SGD(momentum=0.9, nesterov=True)` after `clip_grad_norm_(5)`, for one member,
    /// written out.
    fn by_hand(p: &mut [f64], m: &mut [f64], gradient: &[f64], lr: f64, weight_decay: f64) {
        let mut g: Vec<f64> = gradient.iter().zip(&*p).map(|(g, p)| g + weight_decay * p).collect();
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let factor = (5.0 / (norm + 1e-6)).min(1.0);
        for ((p, m), g) in p.iter_mut().zip(m).zip(&mut g) {
            *g *= factor;
            *m = 0.9 * *m + *g;
            *p -= lr * (*g + 0.9 * *m);
        }
    }

    #[test]
    fn equals_the_formula() {
        tch::manual_seed(1);
        // Three members of two entries, 32 and 16 numbers each: blocks as a layout would give them.
        let blocks = [0, 1, 6, 2, 3, 7, 4, 5, 8];
        let rows = |buffer: &Tensor| -> Vec<Vec<f64>> {
            let by_member = buffer.view([-1, BLOCK]).index_select(0, &Tensor::from_slice(&blocks));
            Vec::try_from(by_member.view([3, 48]).to_kind(Kind::Double)).unwrap()
        };
        let mut sgd = Sgd::new(&blocks, 3, 0.02, Device::Cpu);
        let mut p = Tensor::randn([144], (Kind::Float, Device::Cpu));
        let mut m = p.zeros_like();
        let (mut p_hand, mut m_hand) = (rows(&p), rows(&m));
        for (step, scale) in [0.1, 3.0, 40.0, 0.5, 0.0].into_iter().enumerate() {
            let lr = 0.1 / (1.0 + step as f64);
            // Members of different lengths: some are clipped, some are not.
            let mut g = Tensor::randn([144], (Kind::Float, Device::Cpu)) * scale;
            let g_rows = rows(&g);
            sgd.set_lr(lr);
            sgd.step(&mut p, &mut g, &mut m);
            for member in 0..3 {
                by_hand(&mut p_hand[member], &mut m_hand[member], &g_rows[member], lr, 0.02);
            }
            for (ours, hand) in [(rows(&p), &p_hand), (rows(&m), &m_hand)] {
                for (ours, hand) in ours.iter().flatten().zip(hand.iter().flatten()) {
                    assert!((ours - hand).abs() < 1e-5, "step {step}: {ours} and {hand}");
                }
            }
        }
    }
}
