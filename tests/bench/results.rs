//! What came out: a table, and a file that keeps every value.

use crate::Result;
use crate::server::is_websocket;
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind;

/// The values of one server in one case, in the order they were first put.
#[derive(Default)]
pub(crate) struct Values(Vec<Row>);

struct Row {
    title: &'static str,
    unit: &'static str,
    /// Where on a curve.
    x: Option<usize>,
    /// One a round.
    values: Vec<f64>,
}

/// What became of a case with one server.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) values: Values,
    pub(crate) failure: Option<String>,
}

impl Values {
    /// A value that stands alone. What is counted per second is better when it is more.
    pub(crate) fn put(&mut self, title: &'static str, unit: &'static str, value: f64) {
        self.add(title, unit, None, value);
    }

    /// A value of a curve, at `x`.
    pub(crate) fn put_at(&mut self, x: usize, title: &'static str, unit: &'static str, value: f64) {
        self.add(title, unit, Some(x), value);
    }

    fn add(&mut self, title: &'static str, unit: &'static str, x: Option<usize>, value: f64) {
        match self.0.iter_mut().find(|row| row.title == title && row.x == x) {
            Some(row) => row.values.push(value),
            None => self.0.push(Row {
                title,
                unit,
                x,
                values: vec![value],
            }),
        }
    }

    fn find(&self, title: &str, x: Option<usize>) -> &[f64] {
        let row = self.0.iter().find(|row| row.title == title && row.x == x);
        row.map_or(&[], |row| &row.values)
    }
}

/// All of it.
pub(crate) struct Results {
    servers: Vec<Vec<String>>,
    file: Option<String>,
    json: Value,
}

impl Results {
    /// Results that go on with what is in the file, if that is of the same servers.
    pub(crate) fn open(servers: &[Vec<String>], file: Option<&str>) -> Result<Results> {
        let described: Vec<Value> = servers.iter().map(|server| describe(server)).collect();
        let before: Option<Value> = match file.map(fs::read) {
            Some(Ok(text)) => Some(serde_json::from_slice(&text)?),
            Some(Err(e)) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => None,
        };
        let rows = match before {
            Some(before) if before["servers"] == Value::from(described.clone()) => before["rows"].clone(),
            _ => json!([]),
        };
        Ok(Results {
            servers: servers.to_vec(),
            file: file.map(str::to_owned),
            json: json!({"machine": machine(), "servers": described, "rows": rows}),
        })
    }

    pub(crate) fn print_head(&self) {
        print!("{:58}{:>12}{:>12}", "", "stdio", "ws");
        for (i, server) in self.servers.iter().enumerate().skip(2) {
            let transport = if is_websocket(server) { "ws" } else { "stdio" };
            print!("{:>20}", format!("[{}] {transport}", i - 1));
        }
        println!();
    }

    pub(crate) fn print_foot(&self) {
        for (i, server) in self.servers.iter().enumerate().skip(2) {
            println!("[{}] {}", i - 1, server.join(" "));
        }
    }

    /// Prints what came out of a case and puts it in the file.
    pub(crate) fn add(&mut self, case: &str, outcomes: &[Outcome]) -> Result<()> {
        let mut kinds: Vec<(&str, &str, Option<usize>)> = Vec::new();
        for row in outcomes.iter().flat_map(|outcome| &outcome.values.0) {
            if !kinds.contains(&(row.title, row.unit, row.x)) {
                kinds.push((row.title, row.unit, row.x));
            }
        }
        let Value::Array(rows) = &mut self.json["rows"] else {
            return Err("its `rows` are no array".into());
        };
        rows.retain(|row| row["case"] != case);
        for &(title, unit, x) in &kinds {
            let values: Vec<_> = outcomes.iter().map(|outcome| outcome.values.find(title, x)).collect();
            rows.push(json!({"case": case, "title": title, "unit": unit, "x": x, "values": values}));
            print_row(&self.servers, title, unit, x, &values, outcomes);
        }
        for (server, outcome) in self.servers.iter().zip(outcomes) {
            if let Some(failure) = &outcome.failure {
                println!("    {case} failed: {}: {failure}", server.join(" "));
            }
        }
        if let Some(file) = &self.file {
            fs::write(file, text(&self.json))?;
        }
        Ok(())
    }
}

fn print_row(
    servers: &[Vec<String>],
    title: &str,
    unit: &str,
    x: Option<usize>,
    values: &[&[f64]],
    outcomes: &[Outcome],
) {
    let at = x.map_or_else(String::new, |x| format!(" at {x}"));
    print!("{:58}", format!("{title}{at}, {unit}"));
    let medians: Vec<Option<f64>> = values.iter().map(|values| median(values)).collect();
    for (i, server) in servers.iter().enumerate() {
        let text = match medians[i] {
            Some(value) if value.abs() < 100.0 => format!("{value:.2}"),
            Some(value) => format!("{value:.0}"),
            None if outcomes[i].failure.is_some() => "failed".to_owned(),
            None => "-".to_owned(),
        };
        let own = medians[usize::from(is_websocket(server))];
        let ratio = medians[i].zip(own).map(|(v, own)| format!(" x {:.2}", v / own));
        match i {
            0 | 1 => print!("{text:>12}"),
            _ => print!("{text:>11}{:9}", ratio.unwrap_or_default()),
        }
    }
    println!();
}

/// A server as it is called elsewhere: without the way to its program.
fn describe(command: &[String]) -> Value {
    let program = command[0].rsplit('/').next().unwrap_or_default();
    let transport = if is_websocket(command) { "ws" } else { "stdio" };
    let command = [&[program.to_owned()], &command[1..]].concat().join(" ");
    json!({"command": command, "transport": transport})
}

/// Where it was measured.
fn machine() -> Value {
    let first_line = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.rsplit(": ").next().unwrap_or_default().trim().to_owned()
    };
    json!({
        "cpu": first_line("/proc/cpuinfo", "model name"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": first_line("/proc/sys/kernel/osrelease", ""),
    })
}

/// JSON with a row a line, so that two of them can be compared.
fn text(json: &Value) -> String {
    let rows = json["rows"].as_array().map_or(&[][..], |rows| rows);
    let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    let (machine, servers) = (&json["machine"], &json["servers"]);
    format!(
        "{{\"machine\":{machine},\n\"servers\":{servers},\n\"rows\":[\n{}\n]}}\n",
        rows.join(",\n")
    )
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}
