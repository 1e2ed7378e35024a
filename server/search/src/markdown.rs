//! The report of a comparison as Markdown.

use std::fmt::Write;

use pba_specs::{ComparisonResults, ComparisonSpec, Entry, Tuning, Verdict};

/// The report as Markdown, below a heading of the comparison's name; `circumstances` are a sentence about where
/// and for how long it trained.
pub fn markdown(spec: &ComparisonSpec, results: &ComparisonResults, circumstances: Option<&str>) -> String {
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2}", 100.0 * share));
    let mut text = format!("# {}\n\n", spec.name);
    let mut line =
        |arguments: std::fmt::Arguments<'_>| writeln!(text, "{arguments}").expect("a string takes text");
    let training = &spec.training;
    line(format_args!(
        "`{}` on `{}`: {} training images, {} epochs, base augmentation `{}`, seed {}. {} of {} runs have ended.",
        training.model,
        training.dataset,
        spec.train_size.map_or("the model's own number of".to_owned(), |size| size.to_string()),
        training.epochs,
        training.base.as_deref().unwrap_or("the dataset's own"),
        training.seed,
        results.runs_done,
        results.runs,
    ));
    if let (Some(split), Some(images)) = (&results.split, results.images) {
        line(format_args!("Errors are percentages of {images} images of the split `{split}`."));
    }
    if let Some(circumstances) = circumstances {
        line(format_args!("{circumstances}"));
    }
    if let Some(verdict) = &results.verdict {
        line(format_args!("\n**{verdict}**"));
    }
    if let (Some(arm), Some(command)) = (&results.recommended, &results.stream_command) {
        line(format_args!("\nTrain with `{arm}`: `{command}`"));
    }
    line(format_args!(
        "\n| arm | mean error, % | deviation | n | by seed |\n| --- | ---: | ---: | ---: | --- |"
    ));
    for arm in &results.arms {
        let Entry { name, mean, deviation, n } = &arm.entry;
        let by_seed: Vec<String> = arm.errors.iter().map(|error| percent(*error)).collect();
        let diverged = if arm.diverged > 0 { format!(" ({} diverged)", arm.diverged) } else { String::new() };
        let (mean, deviation, by_seed) = (percent(*mean), percent(*deviation), by_seed.join(" "));
        line(format_args!("| {name} | {mean} | {deviation} | {n}{diverged} | {by_seed} |"));
    }
    if !results.groups.is_empty() {
        line(format_args!(
            "\n| group | mean error, % | deviation of its arms | arms |\n| --- | ---: | ---: | ---: |"
        ));
        for Entry { name, mean, deviation, n } in &results.groups {
            line(format_args!("| {name} | {} | {} | {n} |", percent(*mean), percent(*deviation)));
        }
    }
    line(format_args!(
        "\n| arm | against | difference, points | 95 % interval | n | unit | verdict |\n\
         | --- | --- | ---: | --- | ---: | --- | --- |"
    ));
    for contrast in &results.contrasts {
        let signed = |share: f64| format!("{:+.2}", 100.0 * share);
        let interval = contrast
            .interval
            .map_or("-".to_owned(), |[low, high]| format!("{} to {}", signed(low), signed(high)));
        line(format_args!(
            "| {} | {} | {} | {interval} | {} | {} | {} |",
            contrast.arm,
            contrast.against,
            contrast.difference.map_or("-".to_owned(), signed),
            contrast.n,
            contrast.unit,
            contrast.verdict.map_or("-".to_owned(), |verdict| worded(verdict, spec.margin)),
        ));
    }
    line(format_args!(
        "\nA negative difference means fewer errors. Intervals are Student's, and each stands for itself: of \
         twenty, one misses on average."
    ));
    if let Some(Tuning { chosen, candidates, seeds, images }) = &results.tuning {
        line(format_args!(
            "\n`randaugment:tuned` is `{chosen}`, the best of {} settings on {images} validation images with {seeds} \
             seeds each, {} runs:\n\n| setting | mean validation error, % |\n| --- | ---: |",
            candidates.len(),
            candidates.len() * *seeds as usize,
        ));
        for candidate in candidates {
            line(format_args!("| {} | {} |", candidate.arm, percent(candidate.mean)));
        }
    }
    text
}

/// A verdict with the margin that it is about.
pub fn worded(verdict: Verdict, margin: f64) -> String {
    match verdict {
        Verdict::NoDifference => format!("no difference within {margin} points"),
        _ => verdict.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_its_margin() {
        assert_eq!(worded(Verdict::NoDifference, 0.5), "no difference within 0.5 points");
        assert_eq!(worded(Verdict::Better, 0.5), "better");
    }
}
