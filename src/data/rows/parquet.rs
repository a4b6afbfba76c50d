//! Parquet files: row groups as batches of columns.
//!
//! Hides the crate that reads them, and how little of its word is taken for what a file claims.
//!
//! *Why*: a few bytes of parquet can stand for more rows and longer lists than there is memory. So a
//! batch has a few megabytes, texts of a dictionary are shared, not copied, and the pages of lists are
//! counted before they are read.

mod depth;

use super::columnar::{Batches, check_names};
use crate::error::{Error, Result};
use crate::io::untrusted::guarded;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use ::parquet::basic::Compression;
use ::parquet::column::page::PageReader;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use ::parquet::file::serialized_reader::SerializedPageReader;
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Fields, Schema};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// What files of parquet begin and end with, and encrypted ones.
pub(super) const MAGIC: &[u8] = b"PAR1";
pub(super) const ENCRYPTED: &[u8] = b"PARE";

/// What a batch should take, and the rows that it has at most.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_ROWS: u64 = 1024;

/// More rows for a byte of the file are a claim, not data.
const ROWS_PER_BYTE: u64 = 1 << 16;

/// The values in the lists of a row group: all of them may be in one row, at some 12 bytes each.
const MOST_VALUES: u64 = 1 << 27;

pub(super) struct Parquet {
    path: Arc<Path>,
    file: Arc<File>,
    metadata: ArrowReaderMetadata,
    reader: Option<ParquetRecordBatchReader>,
    // The row group that is opened next, and its rows that are passed over.
    group: usize,
    skip: u64,
    // The rows that the open one still has.
    left: u64,
}

impl Parquet {
    pub(super) fn open(path: Arc<Path>, file: File) -> Result<Self> {
        let metadata = guarded(path.display(), || {
            metadata(&file).map_err(|error| error.at(path.display()))
        })?;
        Ok(Self {
            path,
            file: Arc::new(file),
            metadata,
            reader: None,
            group: 0,
            skip: 0,
            left: 0,
        })
    }

    fn rows(&self, group: usize) -> Option<u64> {
        let groups = self.metadata.metadata().row_groups();
        groups.get(group).map(|group| group.num_rows() as u64)
    }

    fn open_group(&mut self, rows: u64) -> Result<()> {
        let group = self.metadata.metadata().row_group(self.group);
        check_lists(&self.file, group)?;
        let bytes = u64::try_from(group.total_byte_size()).unwrap_or_default();
        let per_row = (bytes / rows.max(1)).max(1);
        let batch = (BATCH_BYTES / per_row).clamp(1, BATCH_ROWS);
        let file = self
            .file
            .try_clone()
            .map_err(|error| Error::io(&self.path, &error))?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let reader = builder
            .with_row_groups(vec![self.group])
            .with_batch_size(batch as usize)
            .with_offset(self.skip as usize)
            .build();
        self.reader = Some(reader.map_err(|error| damaged(&error))?);
        self.left = rows - self.skip;
        (self.skip, self.group) = (0, self.group + 1);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(reader) = &mut self.reader {
                let batch = reader.next().transpose();
                let batch = batch.map_err(|error| damaged(&ParquetError::from(error)))?;
                let rows = batch.as_ref().map_or(0, RecordBatch::num_rows) as u64;
                let short = rows == 0 && self.left > 0;
                if short || rows > self.left {
                    return Err(Error::input(format!(
                        "row group {} has other rows than it says",
                        self.group - 1
                    ))
                    .hint(FETCH));
                }
                self.left -= rows;
                if rows > 0 {
                    return Ok(batch);
                }
                self.reader = None;
            }
            match self.rows(self.group) {
                Some(rows) => self.open_group(rows)?,
                None => return Ok(None),
            }
        }
    }
}

impl Batches for Parquet {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let path = self.path.clone();
        guarded(path.display(), || {
            self.read().map_err(|error| error.at(path.display()))
        })
    }

    fn skip(&mut self, rows: usize) -> Result<usize> {
        // The rest of the open row group is read: who passes over rows does so before all others.
        if self.left > 0 {
            return Ok(0);
        }
        let mut passed = 0;
        while let Some(there) = self.rows(self.group) {
            let there = there - self.skip;
            let step = there.min(rows as u64 - passed);
            passed += step;
            if step < there {
                self.skip += step;
                break;
            }
            (self.skip, self.group) = (0, self.group + 1);
        }
        Ok(passed as usize)
    }
}

const FETCH: &str = "the file is damaged or cut off; fetch it again";

fn damaged(error: &ParquetError) -> Error {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    Error::input(format!("cannot be read as parquet: {line}")).hint(FETCH)
}

fn metadata(file: &File) -> Result<ArrowReaderMetadata> {
    depth::check(file)?;
    let damaged = |error| damaged(&error);
    let options = ArrowReaderOptions::new()
        .with_skip_arrow_metadata(true)
        .with_page_index_policy(PageIndexPolicy::Skip);
    let read = ArrowReaderMetadata::load(file, options.clone()).map_err(damaged)?;
    check_names(read.schema().fields())?;
    let metadata = read.metadata().clone();
    let bytes = file.metadata().map_or(0, |file| file.len());
    let all = metadata.file_metadata().num_rows();
    let mut rows: i64 = 0;
    for group in metadata.row_groups() {
        check_codecs(group)?;
        let sum = rows.checked_add(group.num_rows());
        rows = sum.filter(|sum| *sum >= rows).unwrap_or(i64::MAX);
    }
    if rows != all || rows as u64 > bytes.saturating_mul(ROWS_PER_BYTE) {
        let what = format!("says that it has {all} rows, which cannot be");
        return Err(Error::input(what).hint(FETCH));
    }
    // Texts that point into their page: those of a dictionary are there once.
    let schema = Schema::new(views(read.schema().fields()));
    let options = options.with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(metadata, options).map_err(damaged)
}

fn views(fields: &Fields) -> Fields {
    fields.iter().map(|field| view(field)).collect()
}

fn view(field: &Field) -> Arc<Field> {
    let kind = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        DataType::Struct(fields) => DataType::Struct(views(fields)),
        DataType::List(item) => DataType::List(view(item)),
        DataType::Map(entries, sorted) => DataType::Map(view(entries), *sorted),
        other => other.clone(),
    };
    Arc::new(field.clone().with_data_type(kind))
}

fn check_codecs(group: &RowGroupMetaData) -> Result<()> {
    for column in group.columns() {
        let codec = match column.compression() {
            Compression::BROTLI(_) => "brotli",
            Compression::LZO => "LZO",
            _ => continue,
        };
        let name = column.column_path().string();
        return Err(
            Error::input(format!("column `{name}` is compressed with {codec}"))
                .hint("write the file with zstd, snappy, gzip or lz4"),
        );
    }
    Ok(())
}

// The pages say how many values they have; what they hold may be a single row.
fn check_lists(file: &Arc<File>, group: &RowGroupMetaData) -> Result<()> {
    let rows = group.num_rows() as usize;
    let mut values = 0;
    for column in group.columns() {
        if column.column_descr().max_rep_level() == 0 {
            continue;
        }
        let pages = SerializedPageReader::new(file.clone(), column, rows, None);
        let mut pages = pages.map_err(|error| damaged(&error))?;
        while let Some(page) = pages.peek_next_page().map_err(|error| damaged(&error))? {
            values += page.num_levels.unwrap_or_default() as u64;
            pages.skip_next_page().map_err(|error| damaged(&error))?;
        }
    }
    match values > MOST_VALUES {
        true => Err(
            Error::input(format!("the lists of a row group have {values} values"))
                .hint("write the file with smaller row groups"),
        ),
        false => Ok(()),
    }
}
