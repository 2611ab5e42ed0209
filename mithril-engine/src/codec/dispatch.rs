//! The same loop compiled for several instruction sets, chosen at run time. All compilations give the same bytes.

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

                if $crate::codec::dispatch::has_avx512() {
                    // SAFETY: the processor has every feature that the function was compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if $crate::codec::dispatch::has_avx2() {
                    // SAFETY: the processor has every feature that the function was compiled for.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}

pub(super) use multiversion;

/// Whether the AVX-512 copies may run.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vbmi")
        && has_avx2()
}

/// Whether the AVX2 copies may run.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("lzcnt")
}
