package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

const module = "github.com/sidemirror/sidemirror"

// codeTypes are the types of codes: a constant of one of them is a code that the program may print.
var codeTypes = []string{module + "/internal/problem.Code", module + "/proxy/oci.Code"}

// A use is a line of the program that has a code, with what is printed there as far as the line
// itself says: the parts that are known only later are "…".
type use struct {
	at         string // "proxy/upstream/diagnose.go"
	text, hint string
}

// codes has the uses of each code.
type codes map[string][]use

// find type-checks the program below root and returns all of its codes. The error names the lines
// that make a code from parts, which no search can find.
func find(ctx context.Context, root string) (codes, error) {
	loaded, err := packages.Load(&packages.Config{
		Context: ctx, Dir: root,
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedDeps,
	}, "./...")
	if err != nil {
		return nil, err
	}
	s := search{found: codes{}, root: root}
	for _, p := range loaded {
		for _, e := range p.Errors {
			s.wrong = append(s.wrong, e)
		}
		s.fset, s.info = p.Fset, p.TypesInfo
		for _, file := range p.Syntax {
			ast.Inspect(file, s.node)
		}
	}
	return s.found, errors.Join(s.wrong...)
}

// search is a search of one program.
type search struct {
	root  string
	fset  *token.FileSet
	info  *types.Info
	found codes
	wrong []error
}

// node looks at a node of the syntax.
func (s *search) node(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CompositeLit:
		s.literal(n)
	case *ast.CallExpr:
		s.call(n)
	case *ast.BinaryExpr:
		if n.Op == token.ADD && s.isCode(n) && s.info.Types[n].Value == nil {
			s.madeUp(n)
		}
	}
	if e, ok := n.(ast.Expr); ok {
		if code := s.code(e); code != "" {
			s.add(code, use{at: s.at(e)})
		}
	}
	return true
}

// literal finds a code and its texts in a value such as problem.Problem{Code: "x", Text: "y"}.
func (s *search) literal(lit *ast.CompositeLit) {
	fields := map[string]ast.Expr{}
	for _, e := range lit.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			if name, ok := pair.Key.(*ast.Ident); ok {
				fields[name.Name] = pair.Value
			}
		}
	}
	code := s.code(fields["Code"])
	if code == "" {
		return
	}
	text := s.pattern(fields["Text"]) + s.pattern(fields["Message"])
	if fields["Err"] != nil && text != "" {
		text += ": " + unknown
	}
	s.add(code, use{s.at(lit), text, s.pattern(fields["Hint"])})
}

// call finds a code among the arguments of a function, and texts by the names of its parameters.
func (s *search) call(call *ast.CallExpr) {
	if to, ok := s.info.Types[call.Fun]; ok && to.IsType() {
		if slices.Contains(codeTypes, to.Type.String()) && s.info.Types[call].Value == nil {
			s.madeUp(call)
		}
		return
	}
	signature, ok := s.info.Types[call.Fun].Type.(*types.Signature)
	if !ok {
		return
	}
	u, code := use{at: s.at(call)}, ""
	for i, arg := range call.Args {
		if i >= signature.Params().Len() {
			break
		}
		if c := s.code(arg); c != "" {
			code = c
			continue
		}
		switch signature.Params().At(i).Name() {
		case "text", "format":
			u.text = verbs(s.pattern(arg))
		case "hint":
			u.hint = verbs(s.pattern(arg))
		}
	}
	if code != "" {
		s.add(code, u)
	}
}

func (s *search) add(code string, u use) {
	if u.text == unknown {
		u.text = ""
	}
	if u.hint == unknown {
		u.hint = ""
	}
	if !slices.Contains(s.found[code], u) {
		s.found[code] = append(s.found[code], u)
	}
}

// code returns the code that an expression is, or "".
func (s *search) code(e ast.Expr) string {
	if e == nil || !s.isCode(e) {
		return ""
	}
	v := s.info.Types[e].Value
	if v == nil || v.Kind() != constant.String {
		return ""
	}
	return constant.StringVal(v)
}

func (s *search) isCode(e ast.Expr) bool {
	t := s.info.Types[e].Type
	return t != nil && slices.Contains(codeTypes, t.String())
}

func (s *search) madeUp(e ast.Expr) {
	s.wrong = append(s.wrong, fmt.Errorf("%s: makes a code from parts; write each as a constant", s.fset.Position(e.Pos())))
}

// at is the file of an expression, below the root.
func (s *search) at(e ast.Expr) string {
	name := s.fset.Position(e.Pos()).Filename
	if rel, err := filepath.Rel(s.root, name); err == nil {
		name = rel
	}
	return filepath.ToSlash(name)
}

// unknown stands for what is known only when the program runs.
const unknown = "…"

// pattern is the text of an expression, with "…" for what is not constant.
func (s *search) pattern(e ast.Expr) string {
	if e == nil {
		return ""
	}
	if v := s.info.Types[e].Value; v != nil && v.Kind() == constant.String {
		return constant.StringVal(v)
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return strings.ReplaceAll(s.pattern(e.X)+s.pattern(e.Y), unknown+unknown, unknown)
		}
	case *ast.ParenExpr:
		return s.pattern(e.X)
	case *ast.CallExpr:
		if name, ok := e.Fun.(*ast.SelectorExpr); ok && name.Sel.Name == "Sprintf" && len(e.Args) > 0 {
			return verbs(s.pattern(e.Args[0]))
		}
	}
	return unknown
}
