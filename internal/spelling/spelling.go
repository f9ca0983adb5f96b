// Package spelling finds the name that a misspelt one probably means.
package spelling

import "strings"

// longest is the longest name that is compared: the work grows with the product of the lengths.
const longest = 64

// Nearest returns the candidate that is most similar to name, or "" if none is similar.
func Nearest(name string, candidates []string) string {
	best, least := "", 1<<30
	for _, c := range candidates {
		if len(name) > longest || len(c) > longest {
			continue
		}
		if d := Distance(strings.ToLower(name), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	if least > max(1, len(best)/3) {
		return ""
	}
	return best
}

// Distance returns Levenshtein's distance. The exchange of two neighbours counts as one.
func Distance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
