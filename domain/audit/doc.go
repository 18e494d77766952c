// Package audit has what is read of the history: the rows of the views of the
// schema audit, and the filters, pages and cursors of their lists.
package audit
