//go:build !linux

package pgtest

// MemoryDir: only Linux has one for everybody.
func MemoryDir() string { return "" }
