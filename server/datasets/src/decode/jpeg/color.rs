//! Chroma upsampling and colour conversion of rows, as libjpeg does them (`jdsample.c`, `jdcolor.c`).

/// Doubles a row, each sample three parts of the nearer and one of the farther (h2v1).
#[inline(always)]
pub(super) fn double(row: &[u8], out: &mut [u8]) {
    let last = row.len() - 1;
    let blend = |near: u8, far: u8, bias: u16| ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
    let (out, _) = out.as_chunks_mut::<2>();
    // At its ends a row has no farther sample: these are copies.
    out[0] = [row[0], blend(row[0], row[1], 2)];
    for (out, near) in out[1..last].iter_mut().zip(row.windows(3)) {
        *out = [blend(near[1], near[0], 1), blend(near[1], near[2], 2)];
    }
    out[last] = [blend(row[last], row[last - 1], 1), row[last]];
}

/// Doubles a row in both directions (h2v2): `near` is its row, `far` the one above or below.
#[inline(always)]
pub(super) fn double_both(near: &[u8], far: &[u8], sums: &mut [u16], out: &mut [u8]) {
    let last = near.len() - 1;
    let sums = &mut sums[..=last];
    for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
        *sum = 3 * u16::from(near) + u16::from(far);
    }
    let blend = |near: u16, far: u16, bias: u16| ((3 * near + far + bias) >> 4) as u8;
    let (out, _) = out.as_chunks_mut::<2>();
    out[0] = [blend(sums[0], sums[0], 8), blend(sums[0], sums[1], 7)];
    for (out, near) in out[1..last].iter_mut().zip(sums.windows(3)) {
        *out = [blend(near[1], near[0], 8), blend(near[1], near[2], 7)];
    }
    out[last] = [blend(sums[last], sums[last - 1], 8), blend(sums[last], sums[last], 7)];
}

/// Y, Cb and Cr to red, green and blue.
pub(super) fn plain(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    for (((&y, &cb), &cr), out) in y.iter().zip(cb).zip(cr).zip(out.as_chunks_mut::<3>().0) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        const HALF: i32 = 1 << 15;
        let red = y + ((91881 * cr + HALF) >> 16);
        let green = y + ((-22554 * cb - 46802 * cr + HALF) >> 16);
        let blue = y + ((116130 * cb + HALF) >> 16);
        *out = [red, green, blue].map(|value| value.clamp(0, 255) as u8);
    }
}

/// As [`plain`], 16 pixels at a time.
///
/// # Panics
/// When the slices do not hold equally many pixels.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn avx2(y: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    use std::arch::x86_64::*;

    let count = y.len();
    assert!(cb.len() == count && cr.len() == count && out.len() == 3 * count, "rows of one length");
    if count < 16 {
        return plain(y, cb, cr, out);
    }
    #[target_feature(enable = "avx2")]
    #[inline]
    fn widen(samples: &[u8]) -> __m256i {
        let samples: &[u8; 16] = samples.try_into().expect("16 samples");
        // SAFETY: 16 bytes are there.
        _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(samples.as_ptr().cast()) })
    }
    #[target_feature(enable = "avx2")]
    #[inline]
    fn narrow(values: __m256i) -> __m128i {
        _mm_packus_epi16(_mm256_castsi256_si128(values), _mm256_extracti128_si256::<1>(values))
    }
    /// `(factor * x + 2^15) >> 16`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn scaled(x: __m256i, factor: i16) -> __m256i {
        let doubled = _mm256_mulhi_epi16(_mm256_add_epi16(x, x), _mm256_set1_epi16(factor));
        _mm256_srai_epi16::<1>(_mm256_add_epi16(doubled, _mm256_set1_epi16(1)))
    }
    // Which byte of a colour goes to byte i of 16 bytes of pixels; 128 for none.
    const fn spread(colour: usize, part: usize) -> [i8; 16] {
        let mut places = [-128; 16];
        let mut i = 0;
        while i < 16 {
            if (16 * part + i) % 3 == colour {
                places[i] = ((16 * part + i) / 3) as i8;
            }
            i += 1;
        }
        places
    }
    const SPREAD: [[[i8; 16]; 3]; 3] = [
        [spread(0, 0), spread(1, 0), spread(2, 0)],
        [spread(0, 1), spread(1, 1), spread(2, 1)],
        [spread(0, 2), spread(1, 2), spread(2, 2)],
    ];
    let mut start = 0;
    loop {
        let of = |row: &[u8]| widen(&row[start..start + 16]);
        let centre = _mm256_set1_epi16(128);
        let (y, cb, cr) = (of(y), _mm256_sub_epi16(of(cb), centre), _mm256_sub_epi16(of(cr), centre));
        // 91881 = 65536 + 26345, 116130 = 2 * 65536 - 14942, -46802 = 18734 - 65536.
        let red = _mm256_add_epi16(_mm256_add_epi16(y, cr), scaled(cr, 26345));
        let blue = _mm256_add_epi16(_mm256_add_epi16(y, _mm256_add_epi16(cb, cb)), scaled(cb, -14942));
        let factors = _mm256_set1_epi32((18734 << 16) | (-22554i32 & 0xffff));
        let half = _mm256_set1_epi32(1 << 15);
        let part = |pairs| _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_madd_epi16(pairs, factors), half));
        let chroma =
            _mm256_packs_epi32(part(_mm256_unpacklo_epi16(cb, cr)), part(_mm256_unpackhi_epi16(cb, cr)));
        let green = _mm256_add_epi16(_mm256_sub_epi16(y, cr), chroma);
        let colours = [narrow(red), narrow(green), narrow(blue)];
        let (parts, _) = out[3 * start..3 * start + 48].as_chunks_mut::<16>();
        for (part, spread) in parts.iter_mut().zip(&SPREAD) {
            let mut bytes = _mm_setzero_si128();
            for (colour, places) in colours.iter().zip(spread) {
                // SAFETY: 16 bytes are there.
                let places = unsafe { _mm_loadu_si128(places.as_ptr().cast()) };
                bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(*colour, places));
            }
            // SAFETY: 16 bytes are there.
            unsafe { _mm_storeu_si128(part.as_mut_ptr().cast(), bytes) };
        }
        if start + 16 == count {
            return;
        }
        // The last ones may be done twice.
        start = (start + 16).min(count - 16);
    }
}
