//! Rows come back decoded and scaled.

use super::*;
use crate::testing::on_every_simd;
use tangelo_core::DType;

#[test]
fn rows_are_decoded_and_scaled() {
    let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let table = Weight::new(DType::F32, 3, 2, &bytes, 0.5).expect("sizes match");
    on_every_simd(|cx, _| {
        assert_eq!(embed(cx, &table, &[2, 0, 2]).data(), [2.0, 2.5, 0.0, 0.5, 2.0, 2.5]);
    });
}
