"""A compressed trie over tokens: which sequences begin as given ones do, and for how long."""

from __future__ import annotations

from collections.abc import Iterator

Tokens = tuple[int, ...]


class _Node:
    """`edge` leads here from the parent; the sequences of `ends` are spelled by the way from the
    root.
    """

    __slots__ = ("children", "edge", "ends", "parent")

    def __init__(self, edge: Tokens, parent: _Node | None) -> None:
        self.edge = edge
        self.parent = parent
        self.children: dict[int, _Node] = {}
        self.ends: dict[bytes, None] = {}

    def below(self) -> Iterator[bytes]:
        """The sequences that end here, or further on."""
        todo = [self]
        while todo:
            node = todo.pop()
            yield from node.ends
            todo += node.children.values()


class TokenTrie:
    """Adding, removing and looking up cost as much as comparing the tokens once."""

    def __init__(self) -> None:
        self._root = _Node((), None)

    def __bool__(self) -> bool:
        """Whether there is any sequence."""
        return bool(self._root.children or self._root.ends)

    def add(self, tokens: Tokens, sequence: bytes) -> None:
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                child = node.children[tokens[at]] = _Node(tokens[at:], node)
                node = child
                break
            same = common(child.edge, tokens, at)
            node = child if same == len(child.edge) else self._cut(child, same)
            at += same
        node.ends[sequence] = None

    def remove(self, tokens: Tokens, sequence: bytes) -> None:
        """KeyError when it was not added with these tokens."""
        path = self._path(tokens)
        node, depth = path[-1]
        if depth != len(tokens):
            raise KeyError(sequence)
        del node.ends[sequence]
        parent = node.parent
        if parent is not None and not node.ends and not node.children:
            del parent.children[node.edge[0]]
            node = parent
        if node.parent is not None and not node.ends and len(node.children) == 1:
            self._join(node)

    def candidates(self, tokens: Tokens) -> Iterator[tuple[int, bytes]]:
        """Every sequence that has its first token in common, and how many tokens: the longest
        first.
        """
        path = self._path(tokens)
        node, depth = path[-1]
        child = node.children.get(tokens[depth]) if depth < len(tokens) else None
        visited = None
        if child is not None:
            same = depth + common(child.edge, tokens, depth)
            yield from ((same, sequence) for sequence in child.below())
            visited = child
        for node, depth in reversed(path[1:]):
            yield from ((depth, sequence) for sequence in node.ends)
            for other in node.children.values():
                if other is not visited:
                    yield from ((depth, sequence) for sequence in other.below())
            visited = node

    def prefixes(self, tokens: Tokens) -> Iterator[bytes]:
        """The sequences that are a beginning of `tokens`, or all of it."""
        for node, _ in self._path(tokens)[1:]:
            yield from node.ends

    def extensions(self, tokens: Tokens) -> Iterator[bytes]:
        """The sequences that begin with all of `tokens`."""
        for length, sequence in self.candidates(tokens):
            if length < len(tokens):
                return
            yield sequence

    def everything(self) -> Iterator[bytes]:
        return self._root.below()

    def _path(self, tokens: Tokens) -> list[tuple[_Node, int]]:
        """The nodes that lie wholly on the way of `tokens`, from the root on, and their depth."""
        node, depth = self._root, 0
        path = [(node, depth)]
        while depth < len(tokens):
            child = node.children.get(tokens[depth])
            if child is None or common(child.edge, tokens, depth) < len(child.edge):
                break
            node, depth = child, depth + len(child.edge)
            path.append((node, depth))
        return path

    def _cut(self, node: _Node, at: int) -> _Node:
        """A new node on the edge that leads to `node`, after its first `at` tokens."""
        parent = node.parent
        assert parent is not None
        middle = _Node(node.edge[:at], parent)
        parent.children[node.edge[0]] = middle
        node.edge, node.parent = node.edge[at:], middle
        middle.children[node.edge[0]] = node
        return middle

    def _join(self, node: _Node) -> None:
        """`node` has one child and ends nothing: the child takes its place."""
        parent, (child,) = node.parent, node.children.values()
        assert parent is not None
        child.edge, child.parent = node.edge + child.edge, parent
        parent.children[child.edge[0]] = child

    def check_integrity(self) -> None:
        todo = [self._root]
        while todo:
            node = todo.pop()
            for first, child in node.children.items():
                assert child.parent is node, "trie: parent"
                assert child.edge[0] == first, "trie: edge"
                assert child.ends or len(child.children) > 1, "trie: a node for nothing"
                todo.append(child)


def common(edge: Tokens, tokens: Tokens, start: int) -> int:
    """How many tokens `edge` and `tokens` from `start` on begin with in common. Slices are compared
    whole, so that no step of Python is paid per token.
    """
    end = min(len(edge), len(tokens) - start)
    if edge[:end] == tokens[start : start + end]:
        return end
    low, high = 0, end  # the first `low` are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if edge[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle
    return low
