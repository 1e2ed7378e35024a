//! `POST /v1/apply`: one op, or several in sequence, on one image.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pba_augment::{ImageShape, OpCall, Rgba, Sign, apply as apply_op};
use pba_schedules::{MAGNITUDE_MAX, Op};
use pba_wire::Apply;
use pba_wire::query::{integer, nearest};

use crate::app::App;
use crate::draw::sheet::png;
use crate::error::{Cause, Error};
use crate::http::extract::{Binary, Body, Query};
use crate::http::problem::UnsupportedMediaType;
use crate::http::{charged, on_pool};
use crate::stream::client::Client;
use crate::stream::work::Cancellation;
use crate::stream::workspace::Workspace;

/// More ops than a policy ever applies, and few enough to answer at once.
const OPS_MAX: usize = 30;

/// Memory for each pixel of the image, in bytes, at most: its coefficients as decoded (6), its pixels in RGB (3)
/// and RGBA (4), those that an op reads (4), and the PNG, which may have grown to twice its length (8).
const BYTES_PER_PIXEL: u64 = 25;

/// Pixels of the largest image whose buffers a worker keeps.
const KEPT_PIXELS_MAX: u64 = 1 << 20;

/// An op as requested, with its magnitude.
type Asked = (Op, u8, Sign);

/// Applies ops to the PNG or JPEG in the body and returns the RGBA result as PNG.
///
/// Either `op=Rotate&magnitude=5&sign=-1` (by default `magnitude` is 0 and `sign` is 1), or
/// `ops=Rotate:5:-1,Posterize:3`. `x` and `y` are the centre of Cutout, by default the image's centre.
#[utoipa::path(
    post,
    path = "/v1/apply",
    tag = "ops",
    params(Apply),
    request_body(description = "The image", content((Binary = "image/png"), (Binary = "image/jpeg"))),
    responses(
        (status = 200, description = "The result", body = Binary, content_type = "image/png"),
        UnsupportedMediaType,
    ),
)]
pub(crate) async fn apply(
    State(app): State<Arc<App>>,
    client: Client,
    Query(query): Query<Apply>,
    Body(body): Body,
) -> Result<Response, Error> {
    let (x, y) = (query.x, query.y);
    let asked = parse(query)?;
    let turn = app.engine.single_tasks.take(client).await;
    let engine = Arc::clone(&app.engine);
    let (png, memory) = on_pool(&app, client, turn, move |workspace, cancellation| {
        // What cannot be read is told when it is decoded.
        let size = pba_datasets::image_size(&body).ok();
        let pixels = size.map_or(0, |shape| u64::from(shape.height) * u64::from(shape.width));
        let mut memory = engine.memory_for_answer(pixels * BYTES_PER_PIXEL)?;
        let result = result(&body, (x, y), &asked, workspace, cancellation);
        if pixels > KEPT_PIXELS_MAX {
            // A worker does not keep the buffers that only this image needs.
            *workspace = Workspace::default();
        }
        let png = result?;
        memory.shrink_to(png.capacity() as u64);
        Ok((png, memory))
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], charged(png, memory)).into_response())
}

/// The answer to a query and a body, made at once.
///
/// # Errors
/// As the route's.
pub(crate) fn answer(query: Apply, body: &[u8]) -> Result<Vec<u8>, Error> {
    let centre = (query.x, query.y);
    result(body, centre, &parse(query)?, &mut Workspace::default(), &Cancellation::default())
}

/// The PNG of an image after some ops.
fn result(
    body: &[u8],
    (x, y): (Option<u32>, Option<u32>),
    asked: &[Asked],
    workspace: &mut Workspace,
    cancellation: &Cancellation,
) -> Result<Vec<u8>, Error> {
    let image = pba_datasets::decode(body).map_err(|error| Error::new(Cause::NotReadable, error))?;
    let ImageShape { height, width } = image.shape;
    let rgba = Rgba::from_rgb(image.shape, &image.pixels);
    let mut rgba = rgba.map_err(|error| Error::new(Cause::NotReadable, error))?;
    drop(image);
    let centre = (within("x", x, width)?, within("y", y, height)?);
    for &(op, magnitude, sign) in asked {
        if cancellation.is_cancelled() {
            return Err(Error::new(Cause::Timeout, "the client has left"));
        }
        apply_op(&OpCall { op, magnitude, sign, centre }, &mut rgba, &mut workspace.scratch);
    }
    png(width, height, png::ColorType::Rgba, rgba.as_bytes()).map_err(Error::internal)
}

/// A coordinate of the centre, by default the middle of a side.
fn within(parameter: &str, value: Option<u32>, side: u32) -> Result<u32, Error> {
    let value = value.unwrap_or(side / 2);
    if value < side {
        return Ok(value);
    }
    let allowed = format!("0..={} for this image", side - 1);
    Err(Error::parameter(parameter, value, "outside the image", allowed))
}

fn parse(query: Apply) -> Result<Vec<Asked>, Error> {
    let Apply { op, magnitude, sign, ops, .. } = query;
    let op = op.map(|name| op_named("op", &name)).transpose()?;
    let sign = sign.map(|text| sign_of("sign", &text)).transpose()?;
    match (op, ops) {
        (Some(op), None) => Ok(vec![(op, magnitude.unwrap_or(0), sign.unwrap_or(Sign::Plus))]),
        (None, Some(ops)) if magnitude.is_none() && sign.is_none() => {
            let entries: Vec<&str> = ops.split(',').collect();
            if entries.len() > OPS_MAX {
                let allowed = format!("up to {OPS_MAX} ops");
                return Err(Error::parameter("ops", &ops, format!("{} ops", entries.len()), allowed));
            }
            entries.into_iter().map(asked).collect()
        }
        _ => Err(Error::parameter(
            "op",
            op.map_or("", Op::name),
            "either one op or several",
            "op, with optional magnitude and sign; or ops=NAME:MAGNITUDE:SIGN,...",
        )),
    }
}

/// Reads `Rotate:5:-1`, `Rotate:5` or `Invert`.
fn asked(entry: &str) -> Result<Asked, Error> {
    let mut parts = entry.split(':');
    let op = op_named("ops", parts.next().unwrap_or_default())?;
    let magnitude = parts.next().map_or(Ok(0), |text| integer(0..=MAGNITUDE_MAX).read("ops", text))?;
    let sign = parts.next().map_or(Ok(Sign::Plus), |text| sign_of("ops", text))?;
    if parts.next().is_some() {
        return Err(Error::parameter("ops", entry, "too many parts", "NAME:MAGNITUDE:SIGN"));
    }
    Ok((op, magnitude, sign))
}

fn op_named(parameter: &str, name: &str) -> Result<Op, Error> {
    Op::named(name).ok_or_else(|| {
        let nearest = nearest(name, Op::ALL.map(Op::name));
        let hint = nearest.map(|op| format!(", did you mean {op:?}?")).unwrap_or_default();
        Error::parameter(parameter, name, format!("unknown op{hint}"), Op::names())
    })
}

fn sign_of(parameter: &str, text: &str) -> Result<Sign, Error> {
    match text {
        "1" | "+1" | " 1" => Ok(Sign::Plus), // a bare + in a query is a space
        "-1" => Ok(Sign::Minus),
        _ => Err(Error::parameter(parameter, text, "not a sign", "1 or -1")),
    }
}
