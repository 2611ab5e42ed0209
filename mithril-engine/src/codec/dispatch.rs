//! The same loop compiled for several instruction sets, chosen at run time. All compilations give the same bytes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Defines a function whose body is compiled for the running processor's widest vectors.
///
/// The body is plain Rust; the compiler vectorises it with what each copy may use.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "each plane is one")]
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "each plane is one")]
            fn portable($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,bmi1,bmi2,popcnt,lzcnt")]
                #[allow(clippy::too_many_arguments, reason = "each plane is one")]
                fn avx512($($arg: $ty),*) {
                    portable($($arg),*)
                }

                #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
                #[allow(clippy::too_many_arguments, reason = "each plane is one")]
                fn avx2($($arg: $ty),*) {
                    portable($($arg),*)
                }

                match $crate::codec::dispatch::isa() {
                    // SAFETY: the processor has every feature that the function was compiled for.
                    $crate::codec::dispatch::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the processor has every feature that the function was compiled for.
                    $crate::codec::dispatch::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::codec::dispatch::Isa::Portable => {}
                }
            }
            portable($($arg),*)
        }
    };
}

/// As `multiversion`, for the instruction set that is the first argument, or what the processor has of it.
macro_rules! multiversion_for {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments, reason = "each plane is one")]
        $vis fn $name(isa: $crate::codec::dispatch::Isa, $($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "each plane is one")]
            fn portable($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,bmi1,bmi2,popcnt,lzcnt")]
                #[allow(clippy::too_many_arguments, reason = "each plane is one")]
                fn avx512($($arg: $ty),*) {
                    portable($($arg),*)
                }

                #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
                #[allow(clippy::too_many_arguments, reason = "each plane is one")]
                fn avx2($($arg: $ty),*) {
                    portable($($arg),*)
                }

                match isa.supported() {
                    // SAFETY: the processor has every feature that the function was compiled for.
                    $crate::codec::dispatch::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: the processor has every feature that the function was compiled for.
                    $crate::codec::dispatch::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::codec::dispatch::Isa::Portable => {}
                }
            }
            let _ = isa;
            portable($($arg),*)
        }
    };
}

pub(super) use {multiversion, multiversion_for};

/// Instruction sets that have code of their own, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Isa {
    /// Plain Rust; on other processors than x86-64, with the vectors that every one of them has.
    Portable = 0,
    /// x86-64 with AVX2, BMI1, BMI2, POPCNT and LZCNT.
    Avx2 = 1,
    /// x86-64 with AVX-512 F, BW, VL, DQ, CD, VBMI and VBMI2 (Ice Lake, Zen 4 and later).
    Avx512 = 2,
}

impl Isa {
    /// All of them, the least first.
    pub const ALL: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

    /// Those that this processor can run, the least first. Limits do not count.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| *isa <= detected())
    }

    /// This one, or the most that this processor can run.
    pub(super) fn supported(self) -> Isa {
        self.min(detected())
    }
}

/// The most that [`isa`] may answer.
static LIMIT: AtomicU8 = AtomicU8::new(Isa::Avx512 as u8);

/// Keeps the codec of this process from using more than `isa`, for comparisons. Encoded bytes depend on it only
/// where the level lets the encoder choose formats by the machine; decoding does not depend on it.
pub fn limit_isa(isa: Isa) {
    LIMIT.store(isa as u8, Ordering::Relaxed);
}

/// The instruction set to use.
pub fn isa() -> Isa {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit >= detected() as u8 {
        return detected();
    }
    Isa::ALL[usize::from(limit)]
}

/// What the processor has.
fn detected() -> Isa {
    static DETECTED: OnceLock<Isa> = OnceLock::new();
    *DETECTED.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("lzcnt");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("avx512vbmi2");
    match (avx2, avx512) {
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        _ => Isa::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}
