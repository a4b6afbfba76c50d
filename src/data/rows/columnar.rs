//! Batches of columns as rows of JSON: what parquet and Arrow files hold.
//!
//! Hides the types of Arrow. Each has one JSON value, that of the JSON lines that Python's `datasets`
//! writes: dates and times are milliseconds of the Unix epoch, decimals strings, NaN null. Binary that is
//! UTF-8 is a string. What has no value in JSON is null: other binary, intervals, unions.
//!
//! *Why*: a row is the same whatever file it comes from, so nothing behind it knows of formats.

use super::row::{Place, Record, Row, Source, Unit};
use crate::error::{Error, Result};
use crate::io::untrusted::LONGEST_LINE;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Fields, TimeUnit};
use serde_json::{Map, Number, Value};
use std::path::Path;
use std::sync::Arc;

/// Where batches come from.
pub(super) trait Batches {
    /// The next batch; `None` at the end of the file.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>>;

    /// Passes over at most so many rows without decoding them; how many. The rest of them is in the
    /// batch that comes next, or there are no more.
    fn skip(&mut self, rows: usize) -> Result<usize>;
}

/// The rows of batches.
pub(super) struct Columnar<B> {
    path: Arc<Path>,
    batches: B,
    batch: Option<RecordBatch>,
    // The row of the batch that comes next, and its number in the file.
    next: usize,
    number: usize,
}

impl<B: Batches> Columnar<B> {
    pub(super) fn new(path: Arc<Path>, batches: B) -> Self {
        Self {
            path,
            batches,
            batch: None,
            next: 0,
            number: 0,
        }
    }

    // Whether there is another row.
    fn advance(&mut self) -> Result<bool> {
        let rows = |batch: &RecordBatch| batch.num_rows();
        while self.next >= self.batch.as_ref().map_or(0, rows) {
            self.next = 0;
            self.batch = self.batches.next_batch()?;
            if self.batch.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<B: Batches> Source for Columnar<B> {
    fn next(&mut self) -> Result<Option<Record>> {
        let there = self.advance()?;
        let (true, Some(batch)) = (there, &self.batch) else {
            return match self.number {
                0 => Err(Error::input("the file has no rows").at(self.path.display())),
                _ => Ok(None),
            };
        };
        let place = Place::new(&self.path, Unit::Row, self.number);
        let row = match columns(batch, self.next) {
            Some(columns) => Ok(Row::new(place.clone(), columns)),
            None => Err(Error::input("the row is longer than 64 MiB").at(&place)),
        };
        self.next += 1;
        self.number += 1;
        Ok(Some(Record { place, row }))
    }

    fn pass(&mut self, rows: usize) -> Result<usize> {
        let mut passed = 0;
        while passed < rows {
            let left = self.batch.as_ref().map_or(0, RecordBatch::num_rows) - self.next;
            if left == 0 {
                (self.batch, self.next) = (None, 0);
                passed += self.batches.skip(rows - passed)?;
                if passed == rows || !self.advance()? {
                    break;
                }
                continue;
            }
            let step = left.min(rows - passed);
            self.next += step;
            passed += step;
        }
        self.number += passed;
        Ok(passed)
    }
}

/// Refuses columns, or fields of one, that have a name twice.
pub(super) fn check_names(fields: &Fields) -> Result<()> {
    let mut names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    if let Some(two) = names.windows(2).find(|two| two[0] == two[1]) {
        return Err(Error::input(format!("there are two columns `{}`", two[0])));
    }
    fields.iter().try_for_each(|field| match field.data_type() {
        DataType::Struct(fields) => check_names(fields),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            check_names(&Fields::from(vec![field.clone()]))
        }
        _ => Ok(()),
    })
}

// `None` if the row is longer than a line may be.
fn columns(batch: &RecordBatch, row: usize) -> Option<Map<String, Value>> {
    let mut left = LONGEST_LINE;
    let schema = batch.schema_ref();
    let fields = schema.fields().iter().zip(batch.columns());
    let value = |(field, column): (&Arc<_>, &Arc<dyn Array>)| {
        let field: &arrow_schema::Field = field;
        Some((field.name().clone(), value(column, row, &mut left)?))
    };
    fields.map(value).collect()
}

// Each value takes some of what is `left`, so that a dictionary or a list cannot fill the memory.
fn value(array: &dyn Array, at: usize, left: &mut usize) -> Option<Value> {
    *left = left.checked_sub(1)?;
    if array.is_null(at) {
        return Some(Value::Null);
    }
    let mut text = |text: &str| {
        *left = left.checked_sub(text.len())?;
        Some(Value::from(text))
    };
    let mut binary = |bytes: &[u8]| match str::from_utf8(bytes) {
        Ok(bytes) => text(bytes),
        Err(_) => Some(Value::Null),
    };
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(at).into(),
        DataType::Utf8 => return text(array.as_string::<i32>().value(at)),
        DataType::LargeUtf8 => return text(array.as_string::<i64>().value(at)),
        DataType::Utf8View => return text(array.as_string_view().value(at)),
        DataType::Binary => return binary(array.as_binary::<i32>().value(at)),
        DataType::LargeBinary => return binary(array.as_binary::<i64>().value(at)),
        DataType::BinaryView => return binary(array.as_binary_view().value(at)),
        DataType::FixedSizeBinary(_) => return binary(array.as_fixed_size_binary().value(at)),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(at).to_f64()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(at).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal32(..) => decimal::<Decimal32Type>(array, at),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(array, at),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(array, at),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(array, at),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(at).into(),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = integer(dictionary.keys(), at).and_then(|key| usize::try_from(key).ok());
            let values = dictionary.values();
            return match key.filter(|key| *key < values.len()) {
                Some(key) => value(values, key, left),
                None => Some(Value::Null),
            };
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let columns = columns
                .map(|(field, column)| Some((field.name().clone(), value(column, at, left)?)));
            Value::Object(columns.collect::<Option<_>>()?)
        }
        DataType::List(_) => return items(&array.as_list::<i32>().value(at), left),
        DataType::LargeList(_) => return items(&array.as_list::<i64>().value(at), left),
        DataType::ListView(_) => return items(&array.as_list_view::<i32>().value(at), left),
        DataType::LargeListView(_) => return items(&array.as_list_view::<i64>().value(at), left),
        DataType::FixedSizeList(..) => return items(&array.as_fixed_size_list().value(at), left),
        DataType::Map(..) => return entries(&array.as_map().value(at), left),
        DataType::Time32(_) | DataType::Time64(_) => time(array, at),
        _ => integer(array, at).map_or(Value::Null, Value::from),
    })
}

fn items(list: &dyn Array, left: &mut usize) -> Option<Value> {
    let items = (0..list.len()).map(|at| value(list, at, left));
    Some(Value::Array(items.collect::<Option<_>>()?))
}

// An object where the keys are strings, else a list of pairs.
fn entries(entries: &arrow_array::StructArray, left: &mut usize) -> Option<Value> {
    let [keys, values] = entries.columns() else {
        return Some(Value::Null);
    };
    let mut pairs = Vec::new();
    for at in 0..entries.len() {
        pairs.push((value(keys, at, left)?, value(values, at, left)?));
    }
    let named = |(key, value): &(Value, Value)| Some((key.as_str()?.to_owned(), value.clone()));
    let object: Option<Map<String, Value>> = pairs.iter().map(named).collect();
    Some(match object {
        Some(object) => Value::Object(object),
        None => pairs
            .into_iter()
            .map(|(key, value)| Value::from(vec![key, value]))
            .collect(),
    })
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn decimal<T: DecimalType>(array: &dyn Array, at: usize) -> Value {
    array.as_primitive::<T>().value_as_string(at).into()
}

// Whole numbers, and what counts in some unit of time: in milliseconds.
fn integer(array: &dyn Array, at: usize) -> Option<i64> {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    macro_rules! of {
        ($kind:ty) => {
            i64::from(array.as_primitive::<$kind>().value(at))
        };
    }
    Some(match array.data_type() {
        DataType::Int8 => of!(Int8Type),
        DataType::Int16 => of!(Int16Type),
        DataType::Int32 => of!(Int32Type),
        DataType::Int64 => of!(Int64Type),
        DataType::UInt8 => of!(UInt8Type),
        DataType::UInt16 => of!(UInt16Type),
        DataType::UInt32 => of!(UInt32Type),
        DataType::UInt64 => i64::try_from(array.as_primitive::<UInt64Type>().value(at)).ok()?,
        DataType::Date32 => of!(Date32Type) * 86_400_000,
        DataType::Date64 => of!(Date64Type),
        DataType::Timestamp(Second, _) => of!(TimestampSecondType).checked_mul(1000)?,
        DataType::Timestamp(Millisecond, _) => of!(TimestampMillisecondType),
        DataType::Timestamp(Microsecond, _) => of!(TimestampMicrosecondType).div_euclid(1000),
        DataType::Timestamp(Nanosecond, _) => of!(TimestampNanosecondType).div_euclid(1_000_000),
        DataType::Duration(Second) => of!(DurationSecondType).checked_mul(1000)?,
        DataType::Duration(Millisecond) => of!(DurationMillisecondType),
        DataType::Duration(Microsecond) => of!(DurationMicrosecondType).div_euclid(1000),
        DataType::Duration(Nanosecond) => of!(DurationNanosecondType).div_euclid(1_000_000),
        _ => return None,
    })
}

// A time of day as `HH:MM:SS`, with microseconds where it has any.
fn time(array: &dyn Array, at: usize) -> Value {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let micros = match array.data_type() {
        DataType::Time32(Second) => {
            i64::from(array.as_primitive::<Time32SecondType>().value(at)) * 1_000_000
        }
        DataType::Time32(Millisecond) => {
            i64::from(array.as_primitive::<Time32MillisecondType>().value(at)) * 1000
        }
        DataType::Time64(Microsecond) => array.as_primitive::<Time64MicrosecondType>().value(at),
        DataType::Time64(Nanosecond) => {
            array.as_primitive::<Time64NanosecondType>().value(at) / 1000
        }
        _ => return Value::Null,
    };
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = match micros {
        0 => String::new(),
        micros => format!(".{micros:06}"),
    };
    format!("{hours:02}:{minutes:02}:{seconds:02}{fraction}").into()
}
