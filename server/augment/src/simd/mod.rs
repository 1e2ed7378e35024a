//! The vector instructions that a processor has, as a value.
//!
//! A [`Level`] is chosen once and handed down, never asked for inside a loop. Every level gives
//! the same bytes, which the tests hold by running one body over all of them. The portable level
//! is plain Rust, too simple to be wrong, and what the others are compared with.
//!
//! There are two ways to a level's own code. [`per_level!`] compiles one plain body several times,
//! for loops that the compiler makes vectors of. What it cannot see through, such as tables,
//! shuffles and masks, is written by hand in `avx512`, `avx2` and what begins with their names.

use std::fmt;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2_resize;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512_resize;

/// A set of vector instructions that this processor has.
///
/// ```
/// use pba_augment::Level;
/// assert!(Level::available().contains(&Level::detect()));
/// assert_eq!(Level::named("portable"), Some(Level::PORTABLE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level(Kind);

/// What a level is. Nobody outside can make one, so one that exists was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// AVX-512 with its foundation, byte, length, byte-permutation and neural-network parts,
    /// as in processors since Intel's Ice Lake and AMD's Zen 4; and what [`Kind::Avx2`] has.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and BMI2, as in processors since Intel's Haswell and AMD's Zen.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust.
    Portable,
}

impl Level {
    /// Plain Rust, on any processor.
    pub const PORTABLE: Level = Level(Kind::Portable);

    /// The best level of this processor.
    pub fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vbmi")
                && is_x86_feature_detected!("avx512vnni");
            return Level(if avx512 { Kind::Avx512 } else { Kind::Avx2 });
        }
        Level::PORTABLE
    }

    /// Every level of this processor, the best first.
    pub fn available() -> Vec<Level> {
        #[cfg(target_arch = "x86_64")]
        match Level::detect().0 {
            Kind::Avx512 => return vec![Level(Kind::Avx512), Level(Kind::Avx2), Level::PORTABLE],
            Kind::Avx2 => return vec![Level(Kind::Avx2), Level::PORTABLE],
            Kind::Portable => {}
        }
        vec![Level::PORTABLE]
    }

    /// The level of this name, if this processor has it.
    pub fn named(name: &str) -> Option<Level> {
        Level::available().into_iter().find(|level| level.name() == name)
    }

    /// `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
        }
    }

    /// Whether a table of 256 bytes is looked up many bytes at a time.
    pub(crate) fn looks_up(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => true,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => false,
            Kind::Portable => false,
        }
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Asks for some bytes that will soon be read.
#[allow(unsafe_code)]
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
pub(crate) fn prefetch(level: Level, bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if level != Level::PORTABLE {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for line in bytes.chunks(64) {
            // SAFETY: the address is one of `bytes`; every processor of this architecture has the
            // instruction.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
        }
    }
}

/// Defines a function that takes a level and then what its body takes. The body is compiled for
/// each level; it may only call functions that are always inlined.
macro_rules! per_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        $vis fn $name(level: $crate::simd::Level, $($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx2,bmi2")]
            fn avx512($($arg: $type),*) $(-> $out)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,bmi2")]
            fn avx2($($arg: $type),*) $(-> $out)? {
                body($($arg),*)
            }

            match level.kind() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a level that exists was detected.
                $crate::simd::Kind::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a level that exists was detected.
                $crate::simd::Kind::Avx2 => unsafe { avx2($($arg),*) },
                $crate::simd::Kind::Portable => body($($arg),*),
            }
        }
    };
}
pub(crate) use per_level;
