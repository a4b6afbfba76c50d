//! Matrices in slices of host memory.

/// A matrix to read: element (i, j) is `values[i * strides.0 + j * strides.1]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    pub values: &'a [T],
    pub shape: (usize, usize),
    pub strides: (usize, usize),
}

/// A matrix to write, laid out as [`Matrix`] is.
#[derive(Debug)]
pub struct MatrixMut<'a, T> {
    pub values: &'a mut [T],
    pub shape: (usize, usize),
    pub strides: (usize, usize),
}

fn fits(values: usize, shape: (usize, usize), strides: (usize, usize)) -> bool {
    shape.0 == 0 || shape.1 == 0 || (shape.0 - 1) * strides.0 + (shape.1 - 1) * strides.1 < values
}

impl<'a, T> Matrix<'a, T> {
    /// # Panics
    /// If an element would lie outside `values`.
    pub fn new(values: &'a [T], shape: (usize, usize), strides: (usize, usize)) -> Self {
        assert!(
            fits(values.len(), shape, strides),
            "a matrix outside its memory"
        );
        Self {
            values,
            shape,
            strides,
        }
    }

    /// Rows one after the other.
    #[cfg(test)]
    pub fn rows(values: &'a [T], shape: (usize, usize)) -> Self {
        Self::new(values, shape, (shape.1, 1))
    }

    /// Transposed.
    pub fn t(self) -> Self {
        Self {
            values: self.values,
            shape: (self.shape.1, self.shape.0),
            strides: (self.strides.1, self.strides.0),
        }
    }
}

impl<'a, T> MatrixMut<'a, T> {
    /// # Panics
    /// If an element would lie outside `values`, or two share a place.
    pub fn new(values: &'a mut [T], shape: (usize, usize), strides: (usize, usize)) -> Self {
        assert!(
            fits(values.len(), shape, strides),
            "a matrix outside its memory"
        );
        assert!(
            strides.1 == 1 && (strides.0 >= shape.1 || shape.0 <= 1),
            "rows to write overlap"
        );
        Self {
            values,
            shape,
            strides,
        }
    }

    /// Rows one after the other.
    pub fn rows(values: &'a mut [T], shape: (usize, usize)) -> Self {
        Self::new(values, shape, (shape.1, 1))
    }
}

/// Whether a product may use all threads of the pool or stays on this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    All,
    One,
}
