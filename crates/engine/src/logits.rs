//! The logits of the last token of a sequence, where the model's head has computed them.

use std::sync::{Arc, OnceLock};

use tangelo_ops::elementwise::gather_rows;
use tangelo_ops::logits::{CHUNK, fetch};
use tangelo_ops::{Cx, Mat, Place};

/// One row of logits, (vocabulary). A clone shares it.
#[derive(Clone, Debug)]
pub enum Logits {
    /// On the host.
    Host(Vec<f32>),
    /// On a device. Who asks for a slice makes a copy that is kept.
    Device {
        /// (1, vocabulary).
        row: Arc<Mat>,
        /// All of them on the host, once they have been asked for.
        copy: Arc<OnceLock<Vec<f32>>>,
    },
}

impl Logits {
    /// The only row of what a forward returned, in the memory of `old` if that can be had.
    pub(crate) fn of_only_row(cx: &Cx, row: Mat, old: Option<Logits>) -> Logits {
        match row.place() {
            Place::Host => Logits::of_row(cx, &row, 0, old),
            Place::Device => Logits::Device { row: Arc::new(row), copy: Arc::default() },
        }
    }

    /// Row `r` of what a forward returned, in the memory of `old` if that can be had.
    pub(crate) fn of_row(cx: &Cx, rows: &Mat, r: usize, old: Option<Logits>) -> Logits {
        match rows.place() {
            Place::Host => {
                let mut data = match old {
                    Some(Logits::Host(data)) => data,
                    _ => Vec::new(),
                };
                data.clear();
                data.extend_from_slice(rows.row(r));
                Logits::Host(data)
            }
            Place::Device => {
                let row = gather_rows(cx, rows.view(), r..r + 1);
                Logits::Device { row: Arc::new(row), copy: Arc::default() }
            }
        }
    }

    /// Whether they are on a device.
    pub(crate) fn is_on_device(&self) -> bool {
        matches!(self, Logits::Device { .. })
    }

    /// Number of logits.
    pub fn len(&self) -> usize {
        match self {
            Logits::Host(data) => data.len(),
            Logits::Device { row, .. } => row.cols(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them on the host.
    pub fn as_slice(&self) -> &[f32] {
        match self {
            Logits::Host(data) => data,
            Logits::Device { row, copy } => copy.get_or_init(|| {
                let mut data = vec![0.0; row.cols()];
                let all: Vec<u32> = (0..row.cols().div_ceil(CHUNK) as u32).collect();
                fetch(row, &all, &mut data);
                data
            }),
        }
    }
}
