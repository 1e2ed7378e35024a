//! What server and trainer say to each other, as text.

use std::collections::BTreeMap;
use std::path::Path;

use pba_search::protocol::{Images, Line, Refusal, Report, Task, arguments, event_name};
use pba_search::{DeviceChoice, Event, Progress, Run, Search, TrainingPlace};
use pba_types::SplitName;

#[track_caller]
fn check(line: &Line<Event>, text: &str) {
    assert_eq!(serde_json::to_string(line).unwrap(), text);
    assert_eq!(&serde_json::from_str::<Line<Event>>(text).unwrap(), line);
}

#[test]
fn lines_read_back() {
    check(&Line::Event(Event::Checkpoint { epoch: 3 }), r#"{"event":"checkpoint","epoch":3}"#);
    check(&Line::Report(Report::Interrupted), r#"{"event":"interrupted"}"#);
    check(
        &Line::Report(Report::Resumed { epoch: 6, events: 9 }),
        r#"{"event":"resumed","epoch":6,"events":9}"#,
    );
    let progress = Progress {
        epoch: 1,
        epochs: 4,
        fraction: 0.25,
        images: 128,
        images_per_second: 64.0,
        seconds: 2.0,
        seconds_left: None,
        gpu_memory_used_bytes: None,
    };
    check(
        &Line::Report(Report::Progress(progress)),
        r#"{"event":"progress","epoch":1,"epochs":4,"fraction":0.25,"images":128,"images_per_second":64.0,"seconds":2.0,"seconds_left":null}"#,
    );
    let place = TrainingPlace {
        device: "cpu".to_owned(),
        strategy: "sequential".to_owned(),
        precision: "fp32".to_owned(),
        threads: 2,
        note: None,
    };
    assert_eq!(place.to_string(), "cpu, sequential, fp32");
    check(
        &Line::Report(Report::Device(place)),
        r#"{"event":"device","device":"cpu","strategy":"sequential","precision":"fp32","threads":2,"note":null}"#,
    );
    check(&Line::Report(Report::Saved { epoch: 3 }), r#"{"event":"saved","epoch":3}"#);
    let error = Refusal { field: "lr".to_owned(), message: "lr is 0".to_owned() };
    check(&Line::Refused { error }, r#"{"error":{"field":"lr","message":"lr is 0"}}"#);
    assert!(serde_json::from_str::<Line<Event>>(r#"{"event":"sung"}"#).is_err());
    assert_eq!(event_name(r#"{"event":"checkpoint","epoch":3}"#).unwrap(), "checkpoint");
}

#[test]
fn a_trainer_is_called_by_its_flags() {
    let splits = BTreeMap::from([(SplitName::Train, Some("5d".to_owned())), (SplitName::Test, None)]);
    let words = |task, splits| {
        let images = Images { dataset: "shapes", splits, cache: Path::new("/cache") };
        let arguments = arguments(Search::JOB, task, images);
        arguments.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    };
    let unknown = &BTreeMap::new();
    let check = "search --dataset shapes --cache /cache";
    assert_eq!(words(Task::Check, unknown), format!("{check} --spec - --check"));
    let with_splits = format!("{check} --digest train=5d --digest test= --spec - --check");
    assert_eq!(words(Task::Check, &splits), with_splits);
    let run = "search --dataset shapes --cache /cache --spec /run/spec.json --dir /run --parent 7";
    let dir = Path::new("/run");
    assert_eq!(words(Task::Run { dir, parent: 7, auto: None, save_seconds: None }, unknown), run);
    let auto = Some(DeviceChoice::Cuda(1));
    let with_all = words(Task::Run { dir, parent: 7, auto, save_seconds: Some(60) }, unknown);
    assert_eq!(with_all, format!("{run} --auto cuda:1 --save-seconds 60"));
}
