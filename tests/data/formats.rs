//! Rows of every kind of file: parquet, Arrow, CSV, zstd, lists; and what Python writes as JSON.

use super::files::Folder;
use super::*;
use arrow_array::builder::{
    Int64Builder, ListBuilder, MapBuilder, StringBuilder, StringDictionaryBuilder, StructBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Int64Array,
    LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use std::sync::Arc;

/// Three rows of every type that a dataset has.
fn every_type() -> RecordBatch {
    let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
    dictionary.extend([Some("u"), Some("v"), Some("u")]);
    let mut numbers = ListBuilder::new(Int64Builder::new());
    numbers.append_value([Some(1), None]);
    numbers.append_value([]);
    numbers.append_null();
    let fields = ["role", "content"].map(|name| Field::new(name, DataType::Utf8, true));
    let mut messages = ListBuilder::new(StructBuilder::from_fields(fields.to_vec(), 0));
    for turns in [
        &[("user", "hi"), ("assistant", "ho")][..],
        &[],
        &[("user", "?")],
    ] {
        for (role, content) in turns {
            let message = messages.values();
            for (at, text) in [role, content].into_iter().enumerate() {
                message
                    .field_builder::<StringBuilder>(at)
                    .unwrap()
                    .append_value(text);
            }
            message.append(true);
        }
        messages.append(true);
    }
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(1);
    for there in [true, true, false] {
        map.append(there).unwrap();
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "i",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(3)])),
        ),
        ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
        ("f", Arc::new(Float32Array::from(vec![0.5, f32::NAN, 1e10]))),
        (
            "b",
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        ),
        (
            "s",
            Arc::new(StringArray::from(vec![Some("é\"\n"), Some(""), None])),
        ),
        (
            "large",
            Arc::new(LargeStringArray::from(vec!["x", "", "y"])),
        ),
        (
            "view",
            Arc::new(StringViewArray::from(vec!["longer than twelve", "", "y"])),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![&b"abc"[..], b"", b"\xff"])),
        ),
        (
            "date",
            Arc::new(Date32Array::from(vec![Some(1), Some(-1), None])),
        ),
        (
            "time",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(1_234_567),
                Some(-1),
                None,
            ])),
        ),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(125), Some(-350), None])
                    .with_precision_and_scale(10, 2)
                    .unwrap(),
            ),
        ),
        ("null", Arc::new(NullArray::new(3))),
        ("dictionary", Arc::new(dictionary.finish())),
        ("numbers", Arc::new(numbers.finish())),
        ("messages", Arc::new(messages.finish())),
        ("map", Arc::new(map.finish())),
    ];
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn every_value() -> [Value; 3] {
    [
        json!({
            "i": i64::MIN, "u": u64::MAX, "f": 0.5, "b": true, "s": "é\"\n", "large": "x",
            "view": "longer than twelve", "bytes": "abc", "date": 86_400_000, "time": 1234,
            "decimal": "1.25", "null": null, "dictionary": "u", "numbers": [1, null],
            "messages": [
                {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
            ],
            "map": {"k": 1},
        }),
        json!({
            "i": null, "u": 0, "f": null, "b": false, "s": "", "large": "", "view": "",
            "bytes": "", "date": -86_400_000, "time": -1, "decimal": "-3.50", "null": null,
            "dictionary": "v", "numbers": [], "messages": [], "map": {},
        }),
        json!({
            "i": 3, "u": 1, "f": 1e10, "b": null, "s": null, "large": "y", "view": "y",
            "bytes": null, "date": null, "time": null, "decimal": null, "null": null,
            "dictionary": "u", "numbers": null,
            "messages": [{"role": "user", "content": "?"}], "map": null,
        }),
    ]
}

/// Each batch is a row group.
pub(crate) fn parquet_file(batches: &[RecordBatch], compression: Compression) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut bytes = Vec::new();
    let schema = batches[0].schema();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
        writer.flush().unwrap();
    }
    writer.close().unwrap();
    bytes
}

pub(crate) fn arrow_stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batches[0].schema()).unwrap();
    batches
        .iter()
        .for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

pub(crate) fn arrow_file(batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &batches[0].schema()).unwrap();
    batches
        .iter()
        .for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

/// Rows of one column `prompt`.
pub(crate) fn prompts(prompts: &[&str]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(prompts.to_vec()));
    RecordBatch::try_from_iter([("prompt", column)]).unwrap()
}

/// With a checksum, as the program `zstd` writes it.
pub(crate) fn zst(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn objects(folder: &Folder, name: &str) -> Vec<Value> {
    let files = folder.files(&[name]);
    let object = |row: Result<(usize, expo::data::read::Row)>| {
        let (_, row) = row.unwrap();
        let columns = row
            .columns()
            .map(|(name, value)| (name.to_owned(), value.clone()));
        Value::Object(columns.collect())
    };
    files.rows().map(object).collect()
}

#[test]
fn a_row_of_parquet_or_arrow_is_that_of_json_lines() {
    let batch = every_type();
    let folder = Folder::new(&[]);
    for (name, compression) in [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
        ("lz4", Compression::LZ4_RAW),
    ] {
        // What it is shows in its bytes, not in its name.
        folder.write(
            name,
            parquet_file(std::slice::from_ref(&batch), compression),
        );
        assert_eq!(objects(&folder, name), every_value(), "{name}");
    }
    let rows = [batch.slice(0, 1), batch.slice(1, 2)];
    for (name, bytes) in [
        ("groups.parquet", parquet_file(&rows, Compression::SNAPPY)),
        ("stream.arrow", arrow_stream(&rows)),
        ("file.arrow", arrow_file(&rows)),
    ] {
        folder.write(name, bytes);
        assert_eq!(objects(&folder, name), every_value(), "{name}");
        assert_eq!(objects(&folder, &format!("{name}[1:]")), every_value()[1..]);
    }
    let lines: Vec<String> = every_value().iter().map(Value::to_string).collect();
    folder.write("rows.jsonl.zst", zst(lines.join("\n").as_bytes()));
    assert_eq!(objects(&folder, "rows.jsonl.zst"), every_value());
}

#[test]
fn slices_pass_over_row_groups_and_batches() {
    let batches = [
        prompts(&["a", "b"]),
        prompts(&["c"]),
        prompts(&["d", "e", "f"]),
    ];
    let folder = Folder::new(&[]);
    folder.write("p.parquet", parquet_file(&batches, Compression::SNAPPY));
    folder.write("s.arrow", arrow_stream(&batches));
    folder.write("f.arrow", arrow_file(&batches));
    let all = ["a", "b", "c", "d", "e", "f"];
    for name in ["p.parquet", "s.arrow", "f.arrow"] {
        for from in 0..6 {
            for to in from + 1..=6 {
                let rows = folder
                    .rows(&[&format!("{name}[{from}:{to}]"), name])
                    .unwrap();
                let part = all[from..to].iter().enumerate();
                let part = part.map(|(at, prompt)| (from + at, prompt.to_string()));
                let whole = all
                    .iter()
                    .enumerate()
                    .map(|(at, prompt)| (6 + at, prompt.to_string()));
                assert_eq!(
                    rows,
                    part.chain(whole).collect::<Vec<_>>(),
                    "{name} {from} {to}"
                );
            }
        }
        let files = folder.files(&[&format!("{name}[4:]")]);
        let (number, row) = files.rows().next().unwrap().unwrap();
        let error = folder.strip(row.text("text").unwrap_err());
        assert_eq!(number, 4);
        assert_eq!(
            error,
            format!("{name}: row 4: the row has no column `text`, only `prompt`")
        );
        assert_eq!(files.name(&row.place), "row 4");
    }
}

#[test]
fn files_of_columns_that_cannot_be_read_say_why() {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let twice = RecordBatch::try_from_iter([("a", column.clone()), ("a", column)]).unwrap();
    let folder = Folder::new(&[]);
    folder.write("twice.arrow", arrow_stream(&[twice]));
    folder.write(
        "empty.parquet",
        parquet_file(&[prompts(&[])], Compression::SNAPPY),
    );
    folder.write("empty.arrow", arrow_stream(&[prompts(&[])]));
    folder.write("text.parquet", "prompt\n");
    folder.write("page.parquet", "<!DOCTYPE html>");
    let mut compressed = GzEncoder::new(Vec::new(), flate2::Compression::default());
    compressed
        .write_all(&parquet_file(&[prompts(&["a"])], Compression::SNAPPY))
        .unwrap();
    folder.write("rows.parquet.gz", compressed.finish().unwrap());
    for (name, what) in [
        ("twice.arrow", "twice.arrow: there are two columns `a`"),
        ("empty.parquet", "empty.parquet: the file has no rows"),
        ("empty.arrow", "empty.arrow: the file has no rows"),
        (
            "text.parquet",
            "text.parquet: the file is not parquet, whatever its name says",
        ),
        ("page.parquet", "page.parquet: the file is a web page"),
        (
            "rows.parquet.gz",
            "rows.parquet.gz: the file is compressed parquet; unpack it",
        ),
    ] {
        let message = folder.rows(&[name]).unwrap_err();
        assert!(message.starts_with(what), "{message}");
    }
}

#[test]
fn a_table_is_rows_of_text() {
    let folder = Folder::new(&[]);
    let table =
        "\u{feff}prompt,\"an\"\"swer\"\r\n\r\n\"a, \"\"b\"\"\r\n\r\nc\",1\r\nd,\r\n\"\",5\" nail";
    folder.write("t.csv", table);
    let rows = [
        json!({"prompt": "a, \"b\"\r\n\r\nc", "an\"swer": "1"}),
        json!({"prompt": "d", "an\"swer": null}),
        json!({"prompt": null, "an\"swer": "5\" nail"}),
    ];
    assert_eq!(objects(&folder, "t.csv"), rows);
    folder.write("t.csv.zst", zst(table.as_bytes()));
    assert_eq!(objects(&folder, "t.csv.zst"), rows);
    assert_eq!(objects(&folder, "t.csv[1:]"), rows[1..]);
    folder.write("t.tsv", "a\tb\n1,2\t\"3\t4\"\n");
    assert_eq!(
        objects(&folder, "t.tsv"),
        [json!({"a": "1,2", "b": "3\t4"})]
    );
    folder.write("semicolons.csv", "a;b\n1,5;2\n");
    assert_eq!(
        objects(&folder, "semicolons.csv"),
        [json!({"a": "1,5", "b": "2"})]
    );
    // What begins with a bracket is JSON, whatever its name.
    folder.write("lines.csv", "{\"a\": 1}\n");
    assert_eq!(objects(&folder, "lines.csv"), [json!({"a": 1})]);
}

#[test]
fn a_bad_record_of_a_table_is_a_bad_row_with_its_line() {
    let folder = Folder::new(&[]);
    let table = b"prompt,b\nx,\"1\n2\"\n\nshort\nlong,2,3\n\xff,1\ny,2\n";
    folder.write("t.csv", table);
    let files = folder.files(&["t.csv"]);
    let mut said = Vec::new();
    for record in files.records() {
        let (number, record) = record.unwrap();
        said.push(match record.row {
            Ok(row) => format!("{number} {}", folder.strip(&row.place)),
            Err(error) => folder.strip(error).split(';').next().unwrap().to_owned(),
        });
    }
    assert_eq!(
        said,
        [
            "0 t.csv:2",
            "t.csv:5: the row has 1 cells, the first line of the file 2",
            "t.csv:6: the row has 3 cells, the first line of the file 2",
            "t.csv:7: column `prompt` is not UTF-8",
            "4 t.csv:8",
        ]
    );
    for (table, what) in [
        ("a,a\n1,2\n", "t.csv:1: there are two columns `a`"),
        (
            "a,b\n",
            "t.csv: the file has no rows; a table has a line of column names",
        ),
        ("", "t.csv: the file has no rows"),
        (
            "a,b\n1,2\n3,\"4\n5,6\n",
            "t.csv:3: the file ends within a quoted cell",
        ),
        ("a\0b\n", "t.csv: the file has NUL bytes"),
    ] {
        folder.write("t.csv", table);
        let message = folder.rows(&["t.csv"]).unwrap_err();
        let message = message.replace("the row has no column", "");
        let found = folder.files(&["t.csv"]).records().last().unwrap();
        let fatal = found.err().map(|error| folder.strip(error));
        assert!(
            fatal.is_some_and(|fatal| fatal.starts_with(what)),
            "{message}"
        );
    }
}

#[test]
fn what_python_writes_as_numbers_that_are_none_is_null() {
    let folder = Folder::new(&[]);
    let row = r#"{"prompt": "NaN \" Infinity", "a": NaN, "b": [-Infinity, 1], "c": Infinity}"#;
    let value = json!({"prompt": "NaN \" Infinity", "a": null, "b": [null, 1], "c": null});
    folder.write("rows.jsonl", row);
    folder.write("rows.json", format!("[{row},{row}]"));
    assert_eq!(objects(&folder, "rows.jsonl"), std::slice::from_ref(&value));
    assert_eq!(objects(&folder, "rows.json"), [value.clone(), value]);
    for (row, what) in [
        (
            r#"{"prompt": NaN2}"#,
            "rows.jsonl:1: not JSON: expected `,` or `}` at column 16",
        ),
        (
            r#"{"prompt": "\ud83d!"}"#,
            "rows.jsonl:1: not JSON: half of a character at column",
        ),
        (
            r#"{"prompt": "\ude00"}"#,
            "rows.jsonl:1: not JSON: half of a character at column",
        ),
    ] {
        folder.write("rows.jsonl", row);
        let message = folder.rows(&["rows.jsonl"]).unwrap_err();
        assert!(message.starts_with(what), "{message}");
    }
}

#[test]
fn json_that_is_no_rows_says_what_it_is() {
    let folder = Folder::new(&[]);
    for (text, what) in [
        (
            "{\n  \"prompt\": 1\n}\n{\n",
            "rows.jsonl: the file is JSON over several lines; write",
        ),
        ("{\"rows\": [\n{\"a\": 1}]}", "rows.jsonl:1: not JSON: EOF"),
        (
            "prompt,chosen\na,b\n",
            "rows.jsonl: the file is not JSON, and looks like CSV; the name",
        ),
        (
            "\"a\",\"b\"\n1,2\n",
            "rows.jsonl: the file is not JSON, and looks like CSV",
        ),
        (
            "oops, a line\n{\"prompt\": 1}\n",
            "rows.jsonl:1: not JSON: expected value",
        ),
        (
            "[{\"prompt\": \"a\"}\n,",
            "rows.jsonl:2: not JSON: EOF while parsing a list at column 2",
        ),
        (
            "[{\"prompt\": \"a\"},]",
            "rows.jsonl:1: not JSON: trailing comma at column 18",
        ),
        (
            "[{\"prompt\": \"a\"}] x",
            "rows.jsonl:1: not JSON: trailing characters at column 19",
        ),
        (
            "[{\"prompt\": \"a\"} {}]",
            "rows.jsonl:1: not JSON: trailing characters at column 18",
        ),
        (
            "[{\"prompt\": \"]",
            "rows.jsonl:1: not JSON: EOF while parsing a list",
        ),
    ] {
        folder.write("rows.jsonl", text);
        let error = folder.files(&["rows.jsonl"]).rows().find_map(Result::err);
        let message = folder.strip(error.unwrap());
        assert!(message.starts_with(what), "{message}");
    }
}
