//! Many rows in one statement.
//!
//! On PostgreSQL each column is one parameter, an array: the statement's text is the same for any
//! number of rows, so it is prepared once, and neither side handles a thousand parameters. SQLite
//! has no arrays, and there a parameter costs little.

use std::fmt::Write as _;

use sea_orm::sea_query::{
    Expr, ExprTrait, Func, InsertStatement, IntoColumnRef, IntoIden, LikeExpr, Query,
    extension::postgres::PgFunc,
};
use sea_orm::{DbBackend, Value};

/// Adds `rows` to an insert into `columns`, each with the type of its array on PostgreSQL.
///
/// The rows are inserted in their order: the arrays are unnested in step, an element at a time.
pub(crate) fn insert<C: IntoIden, const N: usize>(
    backend: DbBackend,
    insert: &mut InsertStatement,
    columns: [(C, &'static str); N],
    rows: impl IntoIterator<Item = [Value; N]>,
) {
    let types = columns.each_ref().map(|(_, of_type)| *of_type);
    insert.columns(columns.map(|(column, _)| column.into_iden()));
    match backend {
        DbBackend::Postgres => {
            let mut arrays = [const { Array::new() }; N];
            for row in rows {
                for (array, value) in arrays.iter_mut().zip(row) {
                    array.push(&value);
                }
            }
            let mut unnested = Query::select();
            for (array, of_type) in arrays.into_iter().zip(types) {
                unnested.expr(Func::cust("unnest").arg(array.into_expr(of_type)));
            }
            insert
                .select_from(unnested)
                .expect("it selects as many columns");
        }
        _ => {
            for row in rows {
                insert.values_panic(row.map(Expr::val));
            }
        }
    }
}

/// That `column`, a text, is one of `values`.
pub(crate) fn among(backend: DbBackend, column: impl IntoColumnRef, values: &[&str]) -> Expr {
    match backend {
        DbBackend::Postgres => {
            let mut array = Array::new();
            for value in values {
                array.push_text(value);
            }
            Expr::col(column).eq(PgFunc::any(array.into_expr("text[]")))
        }
        _ => Expr::col(column).is_in(values.iter().copied()),
    }
}

/// A pattern for texts that begin with `prefix`, to the letter: `_` and `%` in it stand for themselves.
pub(crate) fn beginning_with(prefix: &str) -> LikeExpr {
    const ESCAPE: char = '!';
    let mut pattern = String::with_capacity(prefix.len() + 8);
    for letter in prefix.chars() {
        if matches!(letter, '_' | '%' | ESCAPE) {
            pattern.push(ESCAPE);
        }
        pattern.push(letter);
    }
    pattern.push('%');
    LikeExpr::new(pattern).escape(ESCAPE)
}

/// An array as PostgreSQL reads it from text. Unlike an array of sea-query's it may have NULLs, and
/// its elements are not cloned one by one on their way.
struct Array(String);

impl Array {
    const fn new() -> Self {
        Self(String::new())
    }

    fn push(&mut self, value: &Value) {
        if let Value::String(Some(text)) = value {
            return self.push_text(text);
        }
        let array = self.next();
        let written = match value {
            Value::BigInt(Some(number)) => write!(array, "{number}"),
            Value::ChronoDateTime(Some(time)) => write!(array, "\"{time}\""),
            Value::ChronoDateTimeUtc(Some(time)) => write!(array, "\"{}+00\"", time.naive_utc()),
            Value::String(None) | Value::ChronoDateTimeUtc(None) => write!(array, "NULL"),
            other => unreachable!("no column here is {other:?}"),
        };
        written.expect("a string takes what is written");
    }

    fn push_text(&mut self, text: &str) {
        let array = self.next();
        array.reserve(text.len() + 2);
        array.push('"');
        for piece in text.split_inclusive(['"', '\\']) {
            let plain = piece.trim_end_matches(['"', '\\']);
            array.push_str(plain);
            if plain.len() < piece.len() {
                array.push('\\');
                array.push_str(&piece[plain.len()..]);
            }
        }
        array.push('"');
    }

    /// Where the next element goes.
    fn next(&mut self) -> &mut String {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        &mut self.0
    }

    fn into_expr(mut self, of_type: &'static str) -> Expr {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        Expr::val(self.0).cast_as(of_type)
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::prelude::DateTime;

    use super::*;

    fn text(values: impl IntoIterator<Item = Value>) -> String {
        let mut array = Array::new();
        for value in values {
            array.push(&value);
        }
        let query = Query::select().expr(array.into_expr("text[]")).to_owned();
        let mut parameters = DbBackend::Postgres.build(&query).values.expect("one").0;
        parameters.remove(0).unwrap()
    }

    #[test]
    fn arrays_are_written_as_postgresql_reads_them() {
        let texts = ["a", "", "NULL", r#"\"#, r#""{x,y}"\"#, "ä b"].map(Value::from);
        assert_eq!(text(texts), r#"{"a","","NULL","\\","\"{x,y}\"\\","ä b"}"#);
        assert_eq!(text([None::<String>.into(), "b".into()]), r#"{NULL,"b"}"#);
        assert_eq!(
            text([1_i64.into(), i64::MIN.into()]),
            "{1,-9223372036854775808}"
        );
        let time = DateTime::default();
        assert_eq!(text([time.into()]), r#"{"1970-01-01 00:00:00"}"#);
        assert_eq!(
            text([time.and_utc().into()]),
            r#"{"1970-01-01 00:00:00+00"}"#
        );
        assert_eq!(text([]), "{}");
    }
}
