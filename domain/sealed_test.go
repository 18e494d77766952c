package domain_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"testing"
)

// implementers reads from a source file of the package which types have the
// given marker method: the members of a sealed interface.
func implementers(t *testing.T, file, method string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, decl := range parsed.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv == nil || f.Name.Name != method {
			continue
		}
		if ident, ok := f.Recv.List[0].Type.(*ast.Ident); ok {
			names = append(names, ident.Name)
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s has no method %s: the test looks in the wrong place", file, method)
	}
	slices.Sort(names)
	return names
}

// typeName gives a value's type without its package.
func typeName(v any) string {
	name := fmt.Sprintf("%T", v)
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[i+1:]
		}
	}
	return name
}

// expectAll fails where a member of a sealed interface has no case, or a case
// is of no member.
func expectAll(t *testing.T, members []string, cases map[string]bool) {
	t.Helper()
	if covered := slices.Sorted(maps.Keys(cases)); !slices.Equal(members, covered) {
		t.Errorf("the interface has the members\n\t%v\nthe cases are of\n\t%v", members, covered)
	}
}
