//! `GET /assets/{asset}`: the style and the scripts of the pages, which are part of the program; and the icon.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pba_types::Digest;

use crate::draw::sheet::png;
use crate::error::Error;
use crate::http::extract::Binary;
use crate::http::problem::NotFound;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// What the pages look like.
pub(super) const STYLE_SHEET: &str = include_str!("../../../assets/style.css");

/// A file, its media type and its content.
type Asset = (&'static str, &'static str, &'static str);

/// All of them.
const ASSETS: [Asset; 5] = [
    ("style.css", STYLE, STYLE_SHEET),
    ("live.js", SCRIPT, include_str!("../../../assets/live.js")),
    ("actions.js", SCRIPT, include_str!("../../../assets/actions.js")),
    ("sheets.js", SCRIPT, include_str!("../../../assets/sheets.js")),
    ("start.js", SCRIPT, include_str!("../../../assets/start.js")),
];

/// The entity tag of each.
static TAGS: LazyLock<[String; ASSETS.len()]> =
    LazyLock::new(|| ASSETS.map(|(_, _, content)| format!("\"{}\"", Digest::of(content))));

/// Returns a file that the pages load.
#[utoipa::path(
    get,
    path = "/assets/{asset}",
    tag = "pages",
    params(("asset" = String, Path, description = "Its name")),
    responses(
        (status = 200, description = "The file, with its digest as the entity tag", body = String, content_type = "text/css"),
        (status = 304, description = "It is still the one with the entity tag in If-None-Match"),
        NotFound,
    ),
)]
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Error> {
    let position = ASSETS.iter().position(|(known, ..)| *known == name);
    let position =
        position.ok_or_else(|| Error::not_found("asset", &name, ASSETS.iter().map(|(known, ..)| *known)))?;
    let ((_, kind, content), tag) = (ASSETS[position], &TAGS[position]);
    // A browser asks each time, so that no page runs with the scripts of another version.
    let headers_of = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, "no-cache")];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers_of).into_response());
    }
    let more = [(header::CONTENT_TYPE, kind), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers_of, more, content).into_response())
}
/// Pixels on a side of the icon.
const ICON_SIDE: u32 = 32;
/// Empty pixels around its bars.
const ICON_MARGIN: u32 = 4;
const ICON_GROUND: [u8; 3] = [0x14, 0x18, 0x1d];
/// A small schedule: height and colour of its bars, each 5 pixels wide and one apart.
const ICON_BARS: [(u32, [u8; 3]); 4] =
    [(8, [237, 217, 130]), (14, [110, 190, 150]), (24, [45, 125, 160]), (18, [96, 104, 190])];

/// Returns the icon that browsers request on their own.
#[utoipa::path(
    get,
    path = "/favicon.ico",
    tag = "pages",
    responses((status = 200, description = "The icon", body = Binary, content_type = "image/png")),
)]
pub(crate) async fn icon() -> Result<Response, Error> {
    let pixels: Vec<u8> =
        (0..ICON_SIDE * ICON_SIDE).flat_map(|at| icon_pixel(at % ICON_SIDE, at / ICON_SIDE)).collect();
    let icon = png(ICON_SIDE, ICON_SIDE, png::ColorType::Rgb, &pixels).map_err(Error::internal)?;
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "public, max-age=86400")];
    Ok((headers, icon).into_response())
}

fn icon_pixel(x: u32, y: u32) -> [u8; 3] {
    let (column, row) = (x.wrapping_sub(ICON_MARGIN), (ICON_SIDE - ICON_MARGIN).wrapping_sub(y));
    match ICON_BARS.get(column as usize / 6) {
        Some(&(height, color)) if column % 6 < 5 && (1..=height).contains(&row) => color,
        _ => ICON_GROUND,
    }
}
