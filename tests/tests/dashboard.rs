//! The page for browsers.

use pba_tests::Server;

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

/// A picture that cannot be loaded gives way to the reason, one without a source is not shown, and one
/// that changes under its address is fetched again.
#[test]
fn every_picture_is_made_by_the_function_that_minds_its_absence() {
    let server = Server::start(&[]);
    let answer = server.get("/");
    let page = answer.text();
    assert!(!page.contains("<img"), "{page}");
    assert_eq!(page.matches("make(\"img\")").count(), 1, "use picture()");
    assert_eq!(page.matches(".src = ").count(), 1, "use its load()");
    for minds in ["image.onerror = ", "image.hidden = true;", ".card img[hidden]", "URL.createObjectURL("] {
        assert!(page.contains(minds), "the page lacks {minds:?}");
    }
    assert!(answer.header("content-security-policy").unwrap().contains("img-src 'self' blob:"));
}
