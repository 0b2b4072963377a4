//! A linear layer as a value: how its weight is stored is nobody else's business. Beside it the table of embeddings, the
//! one matrix that is looked up and not multiplied.

use crate::error::{Error, Result};
use tangelo_core::{DType, TokenId};
use tangelo_formats::adapter::LowRank;
use tangelo_formats::{Bytes, StoredTensor};
use tangelo_ops::elementwise::add;
use tangelo_ops::embedding::Table;
use tangelo_ops::matmul::{Factor, Packed, Weight, add_product, matmul};
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

/// y = x · Wᵀ · scale (+ bias), and beside it what an adapter adds.
#[derive(Debug)]
pub struct Linear {
    weight: Packed,
    bias: Option<Vector>,
    added: Option<Box<Added>>,
}

/// x · Aᵀ · (s·B)ᵀ.
#[derive(Debug)]
struct Added {
    a: Packed, // (r, in)
    b: Packed, // (out, r)
}

impl Linear {
    /// Copies the weight into the form in which it is multiplied, and gives the memory of the file's pages back: a weight
    /// is never resident twice for longer than this takes.
    pub(crate) fn new(cx: &Cx, stored: &Stored, bias: Option<Vector>, place: Place) -> Result<Linear> {
        let weight = Packed::new(cx, &stored.weight()?, place)
            .map_err(|cause| Error::NoMemory { name: stored.name.clone(), cause })?;
        stored.bytes.release();
        Ok(Linear { weight, bias, added: None })
    }

    /// Puts what an adapter adds beside it.
    pub(crate) fn with_adapter(self, cx: &Cx, name: &str, adapter: &LowRank, place: Place) -> Result<Linear> {
        let (rank, s) = (adapter.rank, adapter.scale);
        let pack = |kind: &str, floats: &mut dyn Iterator<Item = f32>, shape: [usize; 2]| {
            let (name, bytes) = (format!("{name}.lora_{kind}"), bytes_of(floats));
            let stored = Stored { name, dtype: DType::F32, shape, bytes, scale: 1.0 };
            Packed::new(cx, &stored.weight()?, place)
                .map_err(|cause| Error::NoMemory { name: stored.name.clone(), cause })
        };
        let a = pack("A", &mut adapter.a.iter().copied(), [rank, adapter.a.len() / rank])?;
        let b = pack("B", &mut adapter.b.iter().map(|b| b * s), [adapter.b.len() / rank, rank])?;
        Ok(Linear { added: Some(Box::new(Added { a, b })), ..self })
    }

    /// (l, cols) → (l, rows).
    pub fn apply(&self, cx: &Cx, x: View<'_>) -> Mat {
        let mut y = matmul(cx, x, &self.weight, self.bias.as_ref());
        if let Some(Added { a, b }) = self.added.as_deref() {
            let low = matmul(cx, x, a, None);
            add(cx, &mut y, &matmul(cx, low.view(), b, None));
        }
        y
    }
}

/// Numbers as a file of f32 has them.
fn bytes_of(floats: &mut dyn Iterator<Item = f32>) -> Bytes {
    floats.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()
}

/// The weight W + s·B·A with rows of the lengths that the adapter has learned (DoRA), which cannot stand beside W.
pub(crate) fn with_lengths(cx: &Cx, stored: Stored, adapter: &LowRank, lengths: &[f32]) -> Result<Stored> {
    if stored.dtype.is_quantised() {
        return Err(Error::NotPlain { name: stored.name, dtype: stored.dtype });
    }
    let [out, inputs] = stored.shape;
    let tensor = StoredTensor::new(stored.dtype, stored.shape.to_vec(), stored.bytes)?;
    let mut sum: Vec<f32> = tensor.to_f32()?.iter().map(|w| w * stored.scale).collect();
    let b: Vec<f32> = adapter.b.iter().map(|b| b * adapter.scale).collect();
    let (a, b) = (Factor::new(&adapter.a, adapter.rank, inputs), Factor::new(&b, out, adapter.rank));
    add_product(cx, b, a, &mut sum);
    for (row, wanted) in sum.chunks_exact_mut(inputs).zip(lengths) {
        let length = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32;
        let factor = if length > 0.0 { wanted / length } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
    let bytes = bytes_of(&mut sum.into_iter());
    Ok(Stored { name: stored.name, dtype: DType::F32, shape: stored.shape, bytes, scale: 1.0 })
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
