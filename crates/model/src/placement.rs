//! Which parts of a model are on the context's GPU.
//!
//! The layers from some layer on, with the final norm and the head: so activations cross over once per forward. The table
//! of embeddings is looked up, not multiplied, and may stay on the host to save its memory.

use tangelo_ops::Place;

/// Where the parts of a model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Layers before this one are on the host; the others, the final norm and the head on the device. `None` if
    /// nothing is there.
    pub first_on_device: Option<usize>,
    /// Where the table of embeddings is.
    pub embeddings: Place,
}

impl Placement {
    /// Everything in one place.
    pub fn all_on(place: Place) -> Placement {
        let first_on_device = (place == Place::Device).then_some(0);
        Placement { first_on_device, embeddings: place }
    }

    /// Where a layer is.
    pub fn layer(self, layer: usize) -> Place {
        match self.first_on_device {
            Some(first) if layer >= first => Place::Device,
            _ => Place::Host,
        }
    }

    /// Where the final norm and the head are.
    pub fn head(self) -> Place {
        self.layer(usize::MAX)
    }
}
