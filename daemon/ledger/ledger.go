// Package ledger is where costs are kept: what each job took, what backends,
// models and clients took per day, and what that teaches about the next job.
//
// The ledger holds no prompt and no answer, and has no place for one. It
// measures nothing: figures come from power/meter by way of dispatch.
package ledger
