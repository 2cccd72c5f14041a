// Predictions as files to save.

export function csv(rows, columns) {
  const cell = (value) => {
    let text = value === undefined || value === null ? "" : String(value);
    // Prevents a spreadsheet from running a file name as a formula.
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const names = columns.length ? columns : [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return [names.join(","), ...rows.map((row) => names.map((name) => cell(row[name])).join(","))].join("\n") + "\n";
}

export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
