//! A chart of an evaluation inside a page: the mean loss of each epoch.

use crate::draw::chart::Chart;

const TOP: f64 = 16.0;
const HEIGHT: f64 = 180.0;
const BASE: f64 = TOP + HEIGHT;
/// Of the losses' axis.
const TICKS: u32 = 4;
/// Epochs that are drawn at most: of a longer training, some in equal steps.
const DRAWN_MAX: usize = 1_000;

/// Draws the mean loss of each finished epoch, none where the model diverged; nothing before there is any.
pub(crate) fn draw(epochs: u32, losses: &[Option<f64>]) -> Option<String> {
    let finite =
        || (1..).zip(losses).filter_map(|(epoch, loss)| Some((epoch, loss.filter(|loss| loss.is_finite())?)));
    let (last, now) = finite().last()?;
    let greatest = finite().map(|(_, loss)| loss).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let x = |epoch: u32| f64::from(epoch) / f64::from(epochs.max(1));
    let y = |loss: f64| TOP + HEIGHT * (1.0 - loss / greatest);
    let mut chart =
        Chart::new(BASE + 18.0, &format!("Mean loss by epoch: {now:.3} after {last} of {epochs} epochs"));
    for tick in 0..=TICKS {
        let loss = greatest * f64::from(tick) / f64::from(TICKS);
        chart.rule(y(loss), format_args!("{loss:.2}"));
    }
    let step = losses.len().div_ceil(DRAWN_MAX) as u32;
    let drawn: Vec<(u32, f64)> =
        finite().filter(|(epoch, _)| epoch % step == 0 || *epoch == last || *epoch == 1).collect();
    for (position, &(epoch, loss)) in drawn.iter().enumerate() {
        chart.begin(&format!("epoch {epoch}: loss {loss:.4}"));
        if let Some((before, from)) = position.checked_sub(1).map(|before| drawn[before]) {
            chart.line("lineage", [x(before), y(from)], [x(epoch), y(loss)]);
        }
        chart.dot("lineage", [x(epoch), y(loss)], 2.5);
        chart.end();
    }
    chart.epochs(BASE + 14.0, epochs);
    Some(chart.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_with_a_loss_is_drawn() {
        assert_eq!((draw(9, &[]), draw(9, &[None])), (None, None));
        let chart = draw(4, &[Some(2.0), Some(1.0), None, Some(f64::INFINITY)]).unwrap();
        assert_eq!(
            (chart.matches("<circle").count(), chart.matches("class=\"lineage\"").count()),
            (2, 3),
            "{chart}"
        );
        assert!(
            chart.contains("1.000 after 2 of 4 epochs") && chart.contains("epoch 1: loss 2.0000"),
            "{chart}"
        );
        let long = draw(5_001, &vec![Some(1.0); 5_001]).unwrap();
        let drawn = long.matches("<circle").count();
        assert!((800..=DRAWN_MAX + 2).contains(&drawn) && long.contains("epoch 5001:"), "{drawn}");
    }
}
