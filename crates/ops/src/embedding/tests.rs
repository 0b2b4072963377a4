//! Rows come back decoded and scaled, from the host and from a device.

use super::*;
use crate::testing::{assert_same_bits, on_every_simd, on_gpu};

#[test]
fn rows_are_decoded_and_scaled() {
    on_every_simd(|cx, _| {
        let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let table = Table::new(cx, DType::F32, [3, 2], bytes, 0.5, Place::Host).expect("sizes match");
        assert_eq!(table.embed(cx, &[2, 0, 2]).data(), [2.0, 2.5, 0.0, 0.5, 2.0, 2.5]);
    });
}

#[test]
fn the_device_decodes_any_bytes_of_any_type_as_the_host_does() {
    on_gpu(|cx, rng| {
        for dtype in DType::ALL {
            let block = dtype.block_len();
            let (rows, cols) = (5, if block == 1 { 301 } else { 3 * block });
            let bytes = rng.bytes(rows * dtype.row_bytes(cols).expect("whole blocks"));
            for scale in [1.0, 0.3] {
                let on = |place| {
                    let table = Table::new(cx, dtype, [rows, cols], &bytes[..], scale, place);
                    let table = table.expect("sizes match");
                    cx.mat_to(Place::Host, table.embed(cx, &[4, 0, 3, 4]))
                };
                let (host, device) = (on(Place::Host), on(Place::Device));
                assert_same_bits(device.data(), host.data(), &format!("{dtype} times {scale}"));
            }
        }
    });
}
