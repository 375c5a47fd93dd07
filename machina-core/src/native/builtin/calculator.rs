//! The calculator: one operation on two numbers, or a whole expression.

use serde::Deserialize;
use serde_json::json;

use super::expression::{CHARS_MAX, finite, quotient, remainder, value_of};
use super::pure;
use crate::model::ToolResult;
use crate::native::NativeTool;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

#[derive(Deserialize)]
struct Calculation {
    operation: Operation,
    a: f64,
    b: f64,
}

#[derive(Deserialize)]
struct Expression {
    expression: String,
}

pub(super) fn tools() -> Vec<NativeTool> {
    let operations = ["add", "subtract", "multiply", "divide", "remainder", "power"];
    let value = json!({"type": "object", "required": ["value"], "properties": {"value": {"type": "number"}}});
    let one = json!({"operation": {"enum": operations, "description": "What to do with a and b, in this order"},
        "a": {"type": "number"}, "b": {"type": "number"}});
    let expression = json!({"expression": {"type": "string", "minLength": 1, "maxLength": CHARS_MAX,
        "description": "Such as 2 * (3 + 4) ^ 2; with abs, ceil, cos, exp, floor, ln, log10, max, min, round, sin, \
                        sqrt, tan, pi and e"}});
    vec![
        pure(
            "calculator",
            "Performs basic math operations: add, subtract, multiply or divide two numbers.",
            one,
            &["operation", "a", "b"],
            calculate,
        )
        .output_schema(value.clone()),
        pure("evaluate", "Works out an arithmetic expression.", expression, &["expression"], |asked: Expression| {
            value_of(&asked.expression).map(answer)
        })
        .output_schema(value),
    ]
}

fn calculate(Calculation { operation, a, b }: Calculation) -> Result<ToolResult, String> {
    let value = match operation {
        Operation::Add => a + b,
        Operation::Subtract => a - b,
        Operation::Multiply => a * b,
        Operation::Divide => quotient(a, b)?,
        Operation::Remainder => remainder(a, b)?,
        Operation::Power => a.powf(b),
    };
    finite(value, "the operation").map(answer)
}

/// A whole number is written as one.
fn answer(value: f64) -> ToolResult {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
    let value = if value.fract() == 0.0 && value.abs() < EXACT { json!(value as i64) } else { json!(value) };
    json!({ "value": value }).into()
}
