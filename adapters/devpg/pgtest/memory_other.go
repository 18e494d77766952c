//go:build !linux

package pgtest

// memoryDir: only Linux has one for everybody.
func memoryDir() string { return "" }
