//! Matrices of activations, borrowed views of them, and vectors of parameters and states. Each lies on the host or on a
//! device ([`Place`]); elements are looked at where they are on the host.
//!
//! Memory is recycled: a [`Mat`] gives its buffer back to the context it came from when dropped, so that after
//! the first step of a token loop no operation allocates.

use crate::cuda::{Buffer, Gpu};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

/// Where memory lies, and where what is done with it is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// The memory of this process, on its processors.
    #[default]
    Host,
    /// The context's GPU.
    Device,
}

/// Buffers waiting for their next use, initialised to the end: nobody fills them again. The lock is free as long as
/// the context is used by one thread, and costs two atomic instructions then.
pub(super) struct FreeList {
    buffers: Mutex<Vec<Vec<f32>>>,
}

/// Most buffers kept; one step of a model has fewer than this many matrices alive.
const FREE_BUFFERS_MAX: usize = 32;

impl Default for FreeList {
    fn default() -> FreeList {
        FreeList { buffers: Mutex::new(Vec::with_capacity(FREE_BUFFERS_MAX)) }
    }
}

impl FreeList {
    /// The smallest kept buffer of at least `len` elements, or a new one.
    fn take(&self, len: usize) -> Vec<f32> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        // A much larger buffer is left for whoever needs it, so that memory stays near what is in use.
        let fits = |b: &Vec<f32>| b.len() >= len && b.len() / 4 <= len;
        let best = (0..buffers.len()).filter(|&i| fits(&buffers[i])).min_by_key(|&i| buffers[i].len());
        match best {
            Some(i) => buffers.swap_remove(i),
            None => {
                drop(buffers);
                vec![0.0; len]
            }
        }
    }

    fn give(&self, buffer: Vec<f32>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() == FREE_BUFFERS_MAX {
            buffers.remove(0);
        }
        buffers.push(buffer);
    }
}

impl fmt::Debug for FreeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreeList")
    }
}

/// A dense row-major f32 matrix.
#[derive(Debug)]
pub struct Mat {
    memory: Memory,
    rows: usize,
    cols: usize,
    /// Where memory of the host goes in the end.
    home: Option<Arc<FreeList>>,
}

/// At least as many elements as whoever owns it needs.
#[derive(Clone, Debug)]
enum Memory {
    Host(Vec<f32>),
    Device(Buffer),
}

impl Memory {
    /// The elements, if they are on the host.
    #[track_caller]
    fn host(&self) -> &[f32] {
        match self {
            Memory::Host(data) => data,
            Memory::Device(_) => not_on_host(),
        }
    }

    #[track_caller]
    fn host_mut(&mut self) -> &mut [f32] {
        match self {
            Memory::Host(data) => data,
            Memory::Device(_) => not_on_host(),
        }
    }

    fn place(&self) -> Place {
        match self {
            Memory::Host(_) => Place::Host,
            Memory::Device(_) => Place::Device,
        }
    }
}

#[cold]
#[track_caller]
fn not_on_host() -> ! {
    panic!("these elements are on a device; copy them to the host first")
}

impl Mat {
    pub(super) fn recycled(free: &Arc<FreeList>, rows: usize, cols: usize) -> Mat {
        Mat { memory: Memory::Host(free.take(rows * cols)), rows, cols, home: Some(Arc::clone(free)) }
    }

    /// A matrix with unspecified contents on a device.
    pub(crate) fn on_device(gpu: &Gpu, rows: usize, cols: usize) -> Mat {
        let buffer = gpu.buffer(rows * cols * size_of::<f32>());
        Mat { memory: Memory::Device(buffer), rows, cols, home: None }
    }

    /// A matrix that owns `data`, row-major.
    ///
    /// # Panics
    /// If `data.len() != rows * cols`.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<f32>) -> Mat {
        assert_eq!(data.len(), rows * cols, "{rows} x {cols} matrix");
        Mat { memory: Memory::Host(data), rows, cols, home: None }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        self.memory.place()
    }

    /// The device's buffer, if it lies on one.
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Device(buffer) => Some(buffer),
        }
    }

    /// Row `r`.
    ///
    /// # Panics
    /// If there is no such row, or the matrix is on a device (as all that return elements).
    pub fn row(&self, r: usize) -> &[f32] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &self.memory.host()[r * self.cols..(r + 1) * self.cols]
    }

    /// Row `r`.
    ///
    /// # Panics
    /// As [`Mat::row`].
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &mut self.memory.host_mut()[r * self.cols..(r + 1) * self.cols]
    }

    /// All elements, row-major.
    ///
    /// # Panics
    /// As [`Mat::row`].
    pub fn data(&self) -> &[f32] {
        &self.memory.host()[..self.rows * self.cols]
    }

    /// All elements, row-major.
    ///
    /// # Panics
    /// As [`Mat::row`].
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.memory.host_mut()[..self.rows * self.cols]
    }

    /// The whole matrix, borrowed.
    pub fn view(&self) -> View<'_> {
        let data = match &self.memory {
            Memory::Host(_) => Data::Host(self.data()),
            Memory::Device(buffer) => Data::Device { buffer, at: 0 },
        };
        View { data, rows: self.rows, cols: self.cols, stride: self.cols }
    }

    /// The whole matrix, borrowed for writing.
    ///
    /// # Panics
    /// As [`Mat::row`].
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut { rows: self.rows, cols: self.cols, stride: self.cols, data: self.data_mut() }
    }
}

impl Drop for Mat {
    fn drop(&mut self) {
        if let (Some(home), Memory::Host(data)) = (&self.home, &mut self.memory) {
            home.give(std::mem::take(data));
        }
    }
}

/// A vector of parameters, or a part of a state.
#[derive(Clone, Debug)]
pub struct Vector {
    memory: Memory,
    len: usize,
}

impl Vector {
    /// A vector with unspecified contents on a device.
    pub(crate) fn on_device(gpu: &Gpu, len: usize) -> Vector {
        Vector { memory: Memory::Device(gpu.buffer(len * size_of::<f32>())), len }
    }

    /// Number of elements, wherever they are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        self.memory.place()
    }

    /// A copy of the elements, wherever they are.
    pub fn to_vec(&self) -> Vec<f32> {
        match &self.memory {
            Memory::Host(data) => data.clone(),
            Memory::Device(buffer) => {
                let mut data = vec![0.0; self.len];
                buffer.read(0, &mut data);
                data
            }
        }
    }

    /// The device's buffer, if it lies on one.
    pub(crate) fn buffer(&self) -> Option<&Buffer> {
        match &self.memory {
            Memory::Host(_) => None,
            Memory::Device(buffer) => Some(buffer),
        }
    }
}

/// Of no elements.
impl Default for Vector {
    fn default() -> Vector {
        Vector::from(Vec::new())
    }
}

impl From<Vec<f32>> for Vector {
    fn from(data: Vec<f32>) -> Vector {
        Vector { len: data.len(), memory: Memory::Host(data) }
    }
}

impl FromIterator<f32> for Vector {
    fn from_iter<I: IntoIterator<Item = f32>>(elements: I) -> Vector {
        Vector::from(Vec::from_iter(elements))
    }
}

/// The elements, if they are on the host; otherwise it panics.
impl Deref for Vector {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.memory.host()
    }
}

impl DerefMut for Vector {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.memory.host_mut()
    }
}

impl PartialEq for Vector {
    fn eq(&self, other: &Vector) -> bool {
        self.len == other.len && self.to_vec() == other.to_vec()
    }
}

/// A rectangle of a matrix: `rows` rows of `cols` elements, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: Data<'a>,
    rows: usize,
    cols: usize,
    stride: usize,
}

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    Host(&'a [f32]),
    /// From element `at` of the buffer on.
    Device {
        buffer: &'a Buffer,
        at: usize,
    },
}

impl<'a> Data<'a> {
    fn skip(self, elements: usize) -> Data<'a> {
        match self {
            Data::Host(data) => Data::Host(data.get(elements..).unwrap_or(&[])),
            Data::Device { buffer, at } => Data::Device { buffer, at: at + elements },
        }
    }
}

/// A rectangle in the memory of a device, as kernels are given it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceView<'a> {
    /// Where.
    pub gpu: &'a Gpu,
    /// Address of the first element.
    pub address: u64,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl<'a> View<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Where it lies.
    pub fn place(&self) -> Place {
        match self.data {
            Data::Host(_) => Place::Host,
            Data::Device { .. } => Place::Device,
        }
    }

    /// Where it lies on a device, if it does.
    pub(crate) fn device(&self) -> Option<DeviceView<'a>> {
        match self.data {
            Data::Host(_) => None,
            Data::Device { buffer, at } => {
                let address = buffer.address() + (at * size_of::<f32>()) as u64;
                Some(DeviceView { gpu: buffer.gpu(), address, stride: self.stride })
            }
        }
    }

    /// Row `r`.
    ///
    /// # Panics
    /// If there is no such row, or it is on a device.
    pub fn row(&self, r: usize) -> &'a [f32] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        match self.data {
            Data::Host(data) => &data[r * self.stride..r * self.stride + self.cols],
            Data::Device { .. } => not_on_host(),
        }
    }

    /// The rows in `range`.
    pub fn slice_rows(&self, range: Range<usize>) -> View<'a> {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        View { data: self.data.skip(range.start * self.stride), rows: range.len(), ..*self }
    }

    /// The columns in `range`.
    pub fn slice_cols(&self, range: Range<usize>) -> View<'a> {
        assert!(range.start <= range.end && range.end <= self.cols, "columns {range:?} of {}", self.cols);
        View { data: self.data.skip(range.start), cols: range.len(), ..*self }
    }
}

/// A rectangle of a matrix on the host, for writing.
#[derive(Debug)]
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> ViewMut<'a> {
    /// All of `data` as a row-major matrix.
    ///
    /// # Panics
    /// If `data.len() != rows * cols`.
    pub fn from_slice(data: &'a mut [f32], rows: usize, cols: usize) -> ViewMut<'a> {
        assert_eq!(data.len(), rows * cols, "{rows} x {cols} matrix");
        ViewMut { data, rows, cols, stride: cols }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `r`.
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &mut self.data[r * self.stride..r * self.stride + self.cols]
    }

    /// The rows in `range`.
    pub fn slice_rows(&mut self, range: Range<usize>) -> ViewMut<'_> {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let (start, rows) = (range.start * self.stride, range.len());
        let data = self.data.get_mut(start..).unwrap_or(&mut []);
        ViewMut { data, rows, cols: self.cols, stride: self.stride }
    }

    /// Hands disjoint rectangles of this view to several threads.
    pub(crate) fn share(&mut self) -> SharedRows<'_> {
        SharedRows {
            ptr: self.data.as_mut_ptr(),
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
            lifetime: std::marker::PhantomData,
        }
    }
}

/// A rectangle that several threads write, each its own part of it.
pub(crate) struct SharedRows<'a, T = f32> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: the only access is through `part`, whose caller promises that parts in use at one time are disjoint.
unsafe impl<T: Send> Sync for SharedRows<'_, T> {}

impl<'a, T> SharedRows<'a, T> {
    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The columns in `range`, to be shared further.
    pub(crate) fn columns(&self, range: Range<usize>) -> SharedRows<'_, T> {
        assert!(range.start <= range.end && range.end <= self.cols, "columns {range:?} of {}", self.cols);
        // SAFETY: the first element of these columns lies in the slice, or they and it are empty.
        let ptr = unsafe { self.ptr.add(range.start) };
        SharedRows { ptr, cols: range.len(), ..*self }
    }

    /// All of `data` as rows of `cols` elements.
    pub(crate) fn new(data: &'a mut [T], cols: usize) -> SharedRows<'a, T> {
        let rows = data.len().checked_div(cols).unwrap_or(0);
        SharedRows { ptr: data.as_mut_ptr(), rows, cols, stride: cols, lifetime: std::marker::PhantomData }
    }

    /// Where a rectangle begins whose rows are [`SharedRows::stride`] apart.
    pub(crate) fn rectangle(&self, rows: Range<usize>, cols: Range<usize>) -> *mut T {
        assert!(rows.start < rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        assert!(cols.start <= cols.end && cols.end <= self.cols, "columns {cols:?} of {}", self.cols);
        // SAFETY: it lies inside the slice this was made from (checked above).
        unsafe { self.ptr.add(rows.start * self.stride + cols.start) }
    }

    /// The columns in `cols` of row `row`.
    ///
    /// # Safety
    /// No other thread may hold an overlapping part while this one is in use.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, row: usize, cols: Range<usize>) -> &mut [T] {
        assert!(row < self.rows && cols.start <= cols.end && cols.end <= self.cols);
        // SAFETY: the rectangle lies inside the slice this was made from (checked above), and the caller
        // promises that no other part overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(row * self.stride + cols.start), cols.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_a_matrix_is_no_longer_than_it_says() {
        let free = Arc::default();
        let mut large = Mat::recycled(&free, 10, 30);
        large.data_mut().fill(7.0);
        let address = large.data().as_ptr();
        drop(large);
        let smaller = Mat::recycled(&free, 10, 20);
        assert_eq!(smaller.data().as_ptr(), address);
        assert_eq!((smaller.data().len(), smaller.view().rows(), smaller.row(9).len()), (200, 10, 20));
        assert!(std::panic::catch_unwind(|| smaller.row(10)[0]).is_err());
        let much_smaller = Mat::recycled(&free, 1, 20);
        drop(smaller);
        assert_ne!(Mat::recycled(&free, 1, 20).data().as_ptr(), address, "a large buffer for a small matrix");
        drop(much_smaller);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let free: Arc<FreeList> = Arc::default();
        let matrices: Vec<Mat> = (1..100).map(|rows| Mat::recycled(&free, rows, 8)).collect();
        drop(matrices);
        assert_eq!(free.buffers.lock().unwrap().len(), FREE_BUFFERS_MAX);
        // A matrix may outlive its context.
        let last = Mat::recycled(&free, 99, 8);
        drop(free);
        assert_eq!(last.data().len(), 99 * 8);
    }
}
