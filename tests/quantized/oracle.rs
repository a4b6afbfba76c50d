//! NF4 of single matrices against that of bitsandbytes.

use std::collections::BTreeMap;
use std::fs;

use candle_core::{DType, Device};
use expo::kernels::quantized::{Format, Parts, Quantized, Quantizer, Scales, dequantize};
use safetensors::tensor::{Dtype, SafeTensors};

use crate::support::real_fixtures;

struct Oracle(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Oracle {
    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0[name].2.clone()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = &self.0[name];
        match dtype {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Dtype::BF16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| half::bf16::from_le_bytes(*b).to_f32())
                .collect(),
            other => panic!("{name} is {other:?}"),
        }
    }
}

#[test]
fn nf4_is_that_of_bitsandbytes_bit_for_bit() {
    let Some(folder) = real_fixtures() else {
        return;
    };
    let bytes = fs::read(folder.join("adapters/nf4/nf4.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let tensors = tensors.into_iter().map(|(name, tensor)| {
        let (shape, data) = (tensor.shape().to_vec(), tensor.data().to_vec());
        (name, (tensor.dtype(), shape, data))
    });
    let oracle = Oracle(tensors.collect());
    let cases = oracle
        .0
        .keys()
        .filter_map(|name| name.strip_suffix(".packed"));
    let mut seen = 0;
    for case in cases {
        let part = |name: &str| format!("{case}.{name}");
        let double = oracle.0.contains_key(&part("offset"));
        let shape = &oracle.0[&part("x")].1;
        let shape = (shape[0], shape[1]);
        let mut quantizer = Quantizer::new(Format::Nf4 { double }, shape);
        quantizer.push(&oracle.floats(&part("x"))).unwrap();
        let made = quantizer.finish(&Device::Cpu).unwrap();
        let theirs = Parts::Nf4 {
            codes: oracle.bytes(&part("packed")),
            map: oracle.floats("quant_map"),
            scales: match double {
                false => Scales::Plain(oracle.floats(&part("absmax"))),
                true => Scales::Double {
                    codes: oracle.bytes(&part("absmax")),
                    nested: oracle.floats(&part("nested_absmax")),
                    map: oracle.floats("nested_quant_map"),
                    offset: oracle.floats(&part("offset"))[0],
                },
            },
        };
        assert!(made.parts().unwrap() == theirs, "{case}: other bits");
        if oracle.0.contains_key(&part("y")) {
            let (dtype, y) = (oracle.0[&part("y")].0, oracle.floats(&part("y")));
            let dtype = if dtype == Dtype::BF16 {
                DType::BF16
            } else {
                DType::F32
            };
            let read = Quantized::new(theirs, shape, &Device::Cpu).unwrap();
            let read = dequantize(&read, 0..shape.0, dtype).unwrap();
            let read = read.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
            assert!(read.to_vec1::<f32>().unwrap() == y, "{case}: other values");
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}
