use proptest::prelude::*;

use super::*;

fn how(scheme: Scheme, bound: Bound) -> Quantization {
    Quantization { scheme, bound, block_elements: DEFAULT_BLOCK_ELEMENTS }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn back(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Weights as a layer has them.
fn weights(count: u32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32) * 0.7).sin() * ((i as f32) * 0.013).cos() * 0.05).collect()
}

#[test]
fn without_a_tight_bound_each_scheme_errs_as_its_bits_say() {
    let values = weights(4000);
    for (scheme, share) in [
        (Scheme::Int8, 0.5 / 127.0 * 1.0001),
        (Scheme::Fp8E4M3, 1.0 / 16.0),
        (Scheme::Fp8E5M2, 1.0 / 8.0),
        (Scheme::Fp16, 1.0 / 2048.0),
        (Scheme::Bf16, 1.0 / 256.0),
    ] {
        let quantized =
            quantize(&floats(&values), Element::F32, 0, &how(scheme, Bound::Relative(share))).unwrap();
        let report = quantized.report;
        assert_eq!((report.exact, report.elements), (0, 4000), "{scheme}");
        assert!(report.max_error > 0.0 && report.mean_error() < report.max_error, "{scheme}");
    }
}

#[test]
fn what_exceeds_the_bound_is_kept_exactly() {
    let mut values = weights(1000);
    values[500] = 30.0;
    let quantized =
        quantize(&floats(&values), Element::F32, 0, &how(Scheme::Int8, Bound::Absolute(0.001))).unwrap();
    let read = back(&quantized.bytes);
    for (old, new) in values.iter().zip(&read) {
        assert!((old - new).abs() <= 0.001);
    }
    // The outlier spoils the scale of its block alone.
    assert!(quantized.report.exact > 50 && quantized.report.exact <= 128, "{:?}", quantized.report);
    let exact =
        quantize(&floats(&values), Element::F32, 0, &how(Scheme::Bf16, Bound::Absolute(0.0))).unwrap();
    assert_eq!(back(&exact.bytes), values);
    assert_eq!(exact.report.max_error, 0.0);
}

#[test]
fn special_values_stay_bit_for_bit() {
    let special = [
        f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0xffc0_1234),
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        0.0,
        -0.0,
    ];
    for scheme in Scheme::ALL {
        for bound in [Bound::Absolute(1e-3), Bound::Relative(0.01)] {
            for (i, &value) in special.iter().enumerate() {
                let mut values = weights(300);
                values[i * 7] = value;
                let quantized = quantize(&floats(&values), Element::F32, 0, &how(scheme, bound)).unwrap();
                let read = back(&quantized.bytes)[i * 7];
                if value.is_finite() {
                    assert!((read - value).abs() <= 1e-3 * value.abs().max(1.0) * 10.0, "{scheme} {value}");
                } else {
                    assert_eq!(read.to_bits(), value.to_bits(), "{scheme} {bound:?}");
                }
            }
        }
    }
}

#[test]
fn codes_alone_give_the_same_bytes() {
    let mut values = weights(1000);
    values[3] = f32::NAN;
    values[700] = 5.0;
    for phase in [0, 1, 100, 127, 128, 300] {
        let raw = floats(&values);
        let how = how(Scheme::Int8, Bound::Relative(0.004));
        let quantized = quantize(&raw, Element::F32, phase, &how).unwrap();
        let codes = quantized.codes.as_ref().unwrap();
        assert_eq!(codes.scales.len(), blocks(1000, codes.first_elements, 128).count());
        let mut out = raw.clone();
        dequantize(codes, Element::F32, &mut out);
        assert!(out == quantized.bytes, "phase {phase}");
    }
}

#[test]
fn integers_and_nonsense_are_refused() {
    let how = how(Scheme::Int8, Bound::Absolute(0.1));
    for element in Element::ALL.into_iter().filter(|element| !applies_to(*element)) {
        assert!(quantize(&[0; 16], element, 0, &how).unwrap_err().to_string().contains("float"));
    }
    assert!(quantize(&[0; 7], Element::F32, 0, &how).is_err());
    for bound in [Bound::Absolute(-1.0), Bound::Absolute(f64::NAN), Bound::Relative(f64::INFINITY)] {
        let error = quantize(&[0; 8], Element::F32, 0, &Quantization { bound, ..how }).unwrap_err();
        assert!(error.to_string().contains("bound"), "{error}");
    }
    assert!(quantize(&[0; 8], Element::F32, 0, &Quantization { block_elements: 0, ..how }).is_err());
}

#[test]
fn nothing_and_zeros_are_fine() {
    for scheme in Scheme::ALL {
        let how = how(scheme, Bound::Absolute(0.0));
        assert!(quantize(&[], Element::F32, 0, &how).unwrap().bytes.is_empty());
        let zeros = quantize(&[0; 4000], Element::F32, 0, &how).unwrap();
        assert!(zeros.bytes == [0; 4000] && zeros.report.exact == 0, "{scheme}");
    }
}

proptest! {
    #[test]
    fn every_bit_pattern_keeps_to_the_bound(
        bits in proptest::collection::vec(any::<u64>(), 1..300),
        width in 0usize..4,
        scheme in 0usize..5,
        bound in prop_oneof![Just(Bound::Absolute(0.0)), (0.0..10.0f64).prop_map(Bound::Absolute), (0.0..0.5f64).prop_map(Bound::Relative)],
        block_elements in 1usize..70,
        phase in 0usize..100,
    ) {
        let element = [Element::F16, Element::Bf16, Element::F32, Element::F64][width];
        let mut raw: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        raw.truncate(raw.len() / element.width() * element.width());
        let value = |bytes: &[u8]| -> f64 {
            match element {
                Element::F16 => half::f16::load(bytes).to_f64(),
                Element::Bf16 => half::bf16::load(bytes).to_f64(),
                Element::F32 => f64::from(f32::load(bytes)),
                _ => f64::load(bytes),
            }
        };
        let how = Quantization { scheme: Scheme::ALL[scheme], bound, block_elements };
        let quantized = quantize(&raw, element, phase, &how).unwrap();
        let first = block_elements - phase % block_elements;
        let (mut start, mut exact) = (0, 0);
        let pairs: Vec<(&[u8], &[u8])> =
            raw.chunks(element.width()).zip(quantized.bytes.chunks(element.width())).collect();
        for len in blocks(pairs.len(), first, block_elements) {
            let block = &pairs[start..start + len];
            let finite = block.iter().map(|(old, _)| value(old).abs()).filter(|x| x.is_finite());
            let largest = finite.fold(0.0, f64::max);
            for (old, new) in block {
                if !value(old).is_finite() {
                    prop_assert_eq!(old, new);
                    exact += 1;
                } else {
                    prop_assert!((value(old) - value(new)).abs() <= bound.of_block(largest));
                }
            }
            start += len;
        }
        prop_assert!(quantized.report.exact >= exact);
        if let Some(codes) = &quantized.codes {
            let mut out = raw.clone();
            dequantize(codes, element, &mut out);
            prop_assert!(out == quantized.bytes);
        }
    }
}
