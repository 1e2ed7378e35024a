//! The pages for people, as they are sent; `tests/browser` opens them in a browser.

use pba_tests::guarded::Guarded;
use pba_tests::search::{Script, comparison, evaluation, spec};
use pba_tests::{Download, Server, wait_for};
use pba_wire::Role;
use serde_json::{Value, json};

/// Every page that there is without a job.
const PAGES: [&str; 6] = [
    "/",
    "/start",
    "/datasets/shapes",
    "/datasets/shapes?split=test&schedule=randaugment:2:9&epoch=7",
    "/schedules/cifar10-pba",
    "/schedules/cifar10-pba?with=trivial-augment-wide",
];

#[test]
fn the_icon_is_a_picture() {
    let server = Server::start(&[]);
    let answer = server.get("/favicon.ico");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
    assert!(answer.header("cache-control").is_some_and(|value| value.contains("max-age=")));
    let mut reader = png::Decoder::new(std::io::Cursor::new(&answer.body)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let shape = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((shape.width, shape.height), (32, 32));
    assert!(pixels.chunks_exact(3).any(|pixel| pixel != &pixels[..3]), "an empty picture");
}

/// The addresses that a page has in an attribute.
fn addresses<'a>(page: &'a str, attribute: &'a str) -> impl Iterator<Item = &'a str> {
    page.split(attribute).skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn pages_hold_no_script_and_no_style_and_what_they_load_is_there() {
    let server = Server::start(&[]);
    for address in PAGES {
        let answer = server.get(address);
        let page = answer.text();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        let policy = answer.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for inline in [" style=", "<style", " onclick=", " onload=", "<script>", "javascript:"] {
            assert!(!page.contains(inline), "{address} has {inline:?}, which its policy forbids");
        }
        for asset in addresses(&page, "src=\"").chain(addresses(&page, "href=\"")) {
            if asset.starts_with("/assets/") {
                let found = server.get(asset);
                let tag = found.header("etag").unwrap_or_else(|| panic!("{asset} of {address}")).to_owned();
                let again = Download::open(server.address(), "GET", asset, &[("If-None-Match", &tag)], b"")
                    .unwrap()
                    .finish();
                assert_eq!((found.status, again.status, again.body.len()), (200, 304, 0), "{asset}");
            } else if asset.starts_with('/') {
                let target = asset.replace("&#38;", "&");
                assert_eq!(server.get(&target).status, 200, "{address} leads to {target}");
            }
        }
    }
}

#[test]
fn what_is_not_there_is_told_on_a_page() {
    let server = Server::start(&[]);
    for (address, says) in [
        ("/datasets/shape", "did you mean &#34;shapes&#34;?"),
        ("/schedules/%3Cscript%3E", "there is no schedule &#34;&#60;script&#62;&#34;"),
        ("/searches/none", "there is no search"),
        ("/comparisons/none", "there is no comparison"),
        ("/evaluations/none", "there is no evaluation"),
        ("/datasets/shapes?split=val", "there is no split &#34;val&#34;"),
        ("/datasets/shapes?schedule=nope", "there is no schedule &#34;nope&#34;"),
    ] {
        let answer = server.get(address);
        let page = answer.text();
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("text/html; charset=utf-8")));
        assert!(page.contains(says), "{address}: {page}");
        assert!(!page.contains("<script>"), "{page}");
    }
    let wrong = server.get("/datasets/shapes?epoch=-1");
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("epoch="), "{}", wrong.text());
    let beyond = server.get("/datasets/shapes?schedule=cifar10-pba&epoch=777");
    assert_eq!(beyond.status, 400);
    assert!(
        beyond.text().contains("epoch=&#34;777&#34;") && beyond.text().contains("0..=199"),
        "{}",
        beyond.text()
    );
    // A policy that never changes has any epoch.
    let constant = server.get("/datasets/shapes?schedule=trivial-augment-wide&epoch=777");
    assert_eq!(constant.status, 200);
    assert!(constant.text().contains("/epochs/777/"), "{}", constant.text());
    for unscheduled in ["none", "identity"] {
        assert_eq!(server.get(&format!("/datasets/shapes?schedule={unscheduled}")).status, 200);
    }
    assert_eq!(server.get("/assets/none").status, 404);
}

#[test]
fn a_page_is_complete_without_scripts() {
    let server = Server::start(&[]);
    let datasets = server.get("/v1/datasets/shapes").json();
    let page = server.get("/datasets/shapes").text();
    for (split, about) in datasets["splits"].as_object().unwrap() {
        let counts: Vec<u64> =
            about["class_counts"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect();
        assert_eq!(counts.len(), datasets["classes"].as_array().unwrap().len());
        assert_eq!(Some(counts.iter().sum()), about["samples"].as_u64());
        assert!(page.contains(&format!("Images by class in {split}: {} classes", counts.len())), "{page}");
    }
    let schedule = server.get("/schedules/cifar10-pba").text();
    // A chart for each op, the two stacks, and the ops per image.
    assert_eq!(schedule.matches("<svg class=\"chart\"").count(), 15 + 3);
    let both = server.get("/schedules/cifar10-pba?with=svhn-pba").text();
    assert_eq!(both.matches("<svg class=\"chart\"").count(), 2 * (15 + 3));
    let overview = server.get("/").text();
    for part in [
        "Images per second",
        "href=\"/datasets/shapes\"",
        "href=\"/schedules/svhn-pba\"",
        "no trainer runs here",
    ] {
        assert!(overview.contains(part), "the overview lacks {part:?}: {overview}");
    }
}

/// What a page is asked for is what it shows, by default too.
#[test]
fn a_dataset_is_shown_as_its_address_says() {
    let server = Server::start(&[]);
    let page = server.get("/datasets/shapes?split=test&epoch=5&schedule=svhn-pba").text();
    assert!(page.contains("/epochs/5/preview.png?n=25&#38;split=test&#38;schedule=svhn%2Dpba"), "{page}");
    assert!(server.get("/datasets/shapes").text().contains("&#38;split=train&#38;"));
}

#[test]
fn a_job_that_cannot_work_is_warned_of_on_its_page_and_in_the_overview() {
    let script = Script::idles();
    let server = Server::with_trainer(script.path());
    server.start_search(&spec(json!({ "epochs": 6, "perturbation_interval": 9 })));
    server.start_job("comparisons", &comparison(json!({ "name": "compared", "seeds": 1 })));
    let flat = json!({ "name": "flat", "schedule": "trivial-augment-wide", "ablation": "flatten" });
    server.start_job("evaluations", &evaluation(flat));
    let overview = server.get("/").text();
    for (page, says) in [
        ("/searches/small", "the schedule that is learned augments nothing"),
        ("/comparisons/compared", "differences have neither an interval nor a verdict"),
        ("/evaluations/flat", "which changes nothing: trivial-augment-wide is one policy throughout"),
    ] {
        let shown = server.get(page).text();
        assert!(shown.contains("<strong>Warning:</strong>") && shown.contains(says), "{page}: {shown}");
        assert!(overview.contains(says) && overview.contains(&format!("href=\"{page}\"")), "{overview}");
    }
}

#[test]
fn every_page_says_that_the_server_is_shutting_down() {
    let mut server = Server::start(&["--drain-delay-seconds", "3600"]);
    for page in PAGES {
        assert!(!server.get(page).text().contains("shutting down"), "{page}");
    }
    server.process.signal("TERM");
    wait_for("the server to leave", || (server.get("/readyz").status == 503).then_some(()));
    for page in PAGES.into_iter().chain(["/searches/none"]) {
        let shown = server.get(page).text();
        assert!(shown.contains("This server is shutting down: it starts no jobs"), "{page}: {shown}");
    }
    server.process.signal("TERM");
    server.process.wait();
}

#[test]
fn nobody_is_offered_what_their_role_may_not_do() {
    let script = Script::idles();
    let guarded = Guarded::start(&["--trainer", script.path()]);
    let asked = spec(json!({})).to_string();
    let started = guarded.ask_as(Role::Researcher, "POST", "/v1/searches", asked.as_bytes());
    assert_eq!(started.status, 202, "{}", started.text());
    let show = |role, page: &str| {
        let answer = guarded.ask_as(role, "GET", page, b"");
        assert_eq!(answer.status, 200, "{page}");
        answer.text()
    };
    for (role, may) in [(Role::Reader, false), (Role::Researcher, true), (Role::Admin, true)] {
        assert_eq!(show(role, "/").contains("href=\"/start\""), may, "{role}");
        assert_eq!(show(role, "/start").contains("<form class=\"job\""), may, "{role}");
        assert_eq!(show(role, "/searches/small").contains("<button type=\"button\""), may, "{role}");
    }
    assert!(show(Role::Reader, "/start").contains("you have the role reader"));
}

#[test]
fn the_document_lists_every_page() {
    let server = Server::start(&[]);
    let document = server.get("/openapi.json").json();
    let paths = document["paths"].as_object().unwrap();
    let is_page = |item: &&Value| {
        item["get"]["tags"].as_array().is_some_and(|tags| tags.contains(&Value::from("pages")))
    };
    assert_eq!(paths.values().filter(is_page).count(), 9);
    assert_eq!(document["paths"]["/datasets/{dataset}"]["get"]["operationId"], "pages_dataset");
}

/// Also while nothing else counts them, as a scrape of the metrics does.
#[test]
fn waits_are_seen_while_they_last() {
    let server = Server::start(&[]);
    let stream = Download::open_narrow(server.address(), "/v1/datasets/shapes/epochs/0/batches").unwrap();
    pba_tests::wait_for("the overview to show a server that waits", || {
        let page = server.get("/").text();
        let shown = page.split("<dt>Batches waiting</dt><dd>").nth(1).expect("a figure");
        let waiting: f64 = shown.split_whitespace().next().unwrap().parse().unwrap();
        (waiting > 0.5).then_some(())
    });
    drop(stream);
}
