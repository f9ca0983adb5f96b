package shared

import (
	"reflect"
	"testing"

	"github.com/minio/minio-go/v7"
)

// leadsTo reports whether the type from leads to the type to, by its fields, elements and functions.
func leadsTo(from, to reflect.Type, seen map[reflect.Type]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	var next []reflect.Type
	switch from.Kind() {
	case reflect.Struct:
		for f := range from.Fields() {
			next = append(next, f.Type)
		}
	case reflect.Map:
		next = append(next, from.Key(), from.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan:
		next = append(next, from.Elem())
	case reflect.Func:
		for in := range from.Ins() {
			next = append(next, in)
		}
		for out := range from.Outs() {
			next = append(next, out)
		}
	}
	for _, t := range next {
		if leadsTo(t, to, seen) {
			return true
		}
	}
	return false
}

// With the client the program would have all 200 methods of it, and what they need: 1.3 MB.
func TestAStoreDoesNotLeadTheLinkerToTheClient(t *testing.T) {
	t.Parallel()
	client, store := reflect.TypeFor[minio.Client](), reflect.TypeFor[Store]()
	if !leadsTo(reflect.TypeFor[minio.Core](), client, map[reflect.Type]bool{}) || !leadsTo(store, reflect.TypeFor[minio.GetObjectOptions](), map[reflect.Type]bool{}) {
		t.Fatal("the test does not find what is there")
	}
	if leadsTo(store, client, map[reflect.Type]bool{}) {
		t.Error("a Store leads to minio.Client")
	}
}
