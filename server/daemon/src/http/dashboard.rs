//! `GET /`: the dashboard.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::draw::sheet::png;
use crate::error::Error;
use crate::http::extract::Binary;

const PAGE: &str = include_str!("dashboard.html");

/// Shows an overview of the server; the page gets all of its data from the API.
#[utoipa::path(
    get,
    path = "/",
    tag = "operations",
    responses((status = 200, description = "The dashboard", body = String, content_type = "text/html")),
)]
pub(crate) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        // Nothing is loaded from elsewhere, names in it are text, never markup, and no other page holds it.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; frame-ancestors 'none'",
        ),
    ];
    (headers, PAGE).into_response()
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
    tag = "operations",
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
