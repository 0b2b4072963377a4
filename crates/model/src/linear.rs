//! A linear layer as a value: how its weight is stored is nobody else's business. Beside it the table of embeddings, the
//! one matrix that is looked up and not multiplied.

use crate::error::{Error, Result};
use tangelo_core::{DType, TokenId};
use tangelo_formats::Bytes;
use tangelo_ops::embedding::Table;
use tangelo_ops::matmul::{Packed, Weight, matmul};
use tangelo_ops::{Cx, Mat, Place, Vector, View};

/// A matrix as a checkpoint holds it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// For messages.
    pub name: String,
    pub dtype: DType,
    /// Outputs and inputs.
    pub shape: [usize; 2],
    pub bytes: Bytes,
    /// Multiplies every element (FP8).
    pub scale: f32,
}

impl Stored {
    fn weight(&self) -> Result<Weight<'_>> {
        let [rows, cols] = self.shape;
        let weight = Weight::new(self.dtype, rows, cols, &self.bytes, self.scale);
        weight.map_err(|source| Error::Weight { name: self.name.clone(), source })
    }
}

/// y = x · Wᵀ · scale (+ bias).
#[derive(Debug)]
pub struct Linear {
    weight: Packed,
    bias: Option<Vector>,
}

impl Linear {
    /// Copies the weight into the form in which it is multiplied, and gives the memory of the file's pages back: a weight
    /// is never resident twice for longer than this takes.
    pub(crate) fn new(cx: &Cx, stored: &Stored, bias: Option<Vector>, place: Place) -> Result<Linear> {
        let weight = Packed::new(cx, &stored.weight()?, place)
            .map_err(|cause| Error::NoMemory { name: stored.name.clone(), cause })?;
        stored.bytes.release();
        Ok(Linear { weight, bias })
    }

    /// (l, cols) → (l, rows).
    pub fn apply(&self, cx: &Cx, x: View<'_>) -> Mat {
        matmul(cx, x, &self.weight, self.bias.as_ref())
    }
}

/// A row for every token of the vocabulary: on the host left in the mapped file, since few are ever read.
#[derive(Debug)]
pub struct Embeddings(Table<Bytes>);

impl Embeddings {
    pub(crate) fn new(cx: &Cx, stored: Stored, place: Place) -> Result<Embeddings> {
        stored.weight()?;
        let Stored { name, dtype, shape, bytes, scale } = stored;
        let table = Table::new(cx, dtype, shape, bytes.clone(), scale, place)
            .map_err(|cause| Error::NoMemory { name, cause: cause.into() })?;
        if place == Place::Device {
            bytes.release();
        }
        Ok(Embeddings(table))
    }

    /// (l) → (l, d), where the table is. Every id must be in the vocabulary.
    pub fn lookup(&self, cx: &Cx, ids: &[TokenId]) -> Mat {
        self.0.embed(cx, ids)
    }
}
