//! The vector instructions that a processor has, as a value.

use std::fmt;

/// A set of vector instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Level(Instructions);

/// What a level has. Only this file makes levels, so one that exists was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Instructions {
    /// AVX-512 with its foundation, byte, length, byte-permutation and neural-network parts,
    /// as in processors since Intel's Ice Lake and AMD's Zen 4; and what [`Instructions::Avx2`] has.
    Avx512,
    /// AVX2 and BMI2, as in processors since Intel's Haswell and AMD's Zen.
    Avx2,
    /// Plain Rust.
    Portable,
}

impl Level {
    /// Plain Rust, on any processor.
    pub const PORTABLE: Level = Level(Instructions::Portable);

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
            return Level(if avx512 { Instructions::Avx512 } else { Instructions::Avx2 });
        }
        Level::PORTABLE
    }

    /// Every level of this processor, the best first.
    pub fn available() -> Vec<Level> {
        let all = [Instructions::Avx512, Instructions::Avx2, Instructions::Portable].map(Level);
        all.into_iter().skip_while(|&level| level != Level::detect()).collect()
    }

    /// The level of this name, if this processor has it.
    pub fn named(name: &str) -> Option<Level> {
        Level::available().into_iter().find(|level| level.name() == name)
    }

    /// `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Avx512 => "avx512",
            Instructions::Avx2 => "avx2",
            Instructions::Portable => "portable",
        }
    }

    /// The instructions, to match on.
    pub(crate) fn instructions(self) -> Instructions {
        self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Asks for some bytes that will soon be read.
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

/// A `match` over levels. What stands at `avx512` and `avx2` may call functions with the target features
/// that `per_level!` lists for them.
macro_rules! at_level {
    ($level:expr, {
        avx512 $(if $fits512:expr)? => $avx512:expr,
        $(avx2 $(if $fits2:expr)? => $avx2:expr,)?
        _ => $other:expr $(,)?
    }) => {
        match $level.instructions() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level that exists was detected.
            $crate::simd::level::Instructions::Avx512 $(if $fits512)? => unsafe { $avx512 },
            $(
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a level that exists was detected.
                $crate::simd::level::Instructions::Avx2 $(if $fits2)? => unsafe { $avx2 },
            )?
            _ => $other,
        }
    };
}
pub(crate) use at_level;

/// Defines a function that takes a level and then what its body takes. The body is compiled for
/// each level; it may only call functions that are always inlined.
macro_rules! per_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code)]
        $vis fn $name(level: $crate::simd::level::Level, $($arg: $type),*) $(-> $out)? {
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

            $crate::simd::level::at_level!(level, {
                avx512 => avx512($($arg),*),
                avx2 => avx2($($arg),*),
                _ => body($($arg),*),
            })
        }
    };
}
pub(crate) use per_level;

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Write, stderr};

    use super::*;

    #[test]
    fn levels_are_found_by_name() {
        for level in Level::available() {
            assert_eq!(Level::named(level.name()), Some(level));
        }
        assert_eq!(Level::named("none"), None);
    }

    /// Defines a test that runs at each level, under the level's name.
    macro_rules! at_each_level {
        ($(#[$meta:meta])* fn $name:ident($level:ident: Level) $body:block) => {
            $(#[$meta])*
            mod $name {
                use super::*;

                fn check($level: $crate::simd::level::Level) $body

                #[test]
                fn portable() {
                    $crate::simd::level::tests::run("portable", check);
                }

                #[test]
                fn avx2() {
                    $crate::simd::level::tests::run("avx2", check);
                }

                #[test]
                fn avx512() {
                    $crate::simd::level::tests::run("avx512", check);
                }
            }
        };
    }
    pub(crate) use at_each_level;

    /// Pixels without a pattern.
    pub(crate) fn noise(count: usize) -> Vec<[u8; 4]> {
        (0..count as u32).map(|i| (i + 1).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    /// Runs a test at a level, or says that it was skipped: past the test harness, which would keep
    /// that to itself.
    pub(crate) fn run(name: &str, check: fn(Level)) {
        match Level::named(name) {
            Some(level) => check(level),
            None => writeln!(stderr(), "skipped: this processor has no {name}").expect("stderr takes text"),
        }
    }
}
