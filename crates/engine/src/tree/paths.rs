//! A radix tree over tokens: every stored path begins at the root of its owner, and paths share what they have in common.
//!
//! A node is a point of a path. It has something stored, or paths part at it; other nodes are removed as soon as they
//! come about, so that the tree is as large as what it holds. Nodes live in a list and are named by their place in it.

use std::collections::HashMap;

use tangelo_core::TokenId;

use super::Owner;

/// A node's place in the list.
pub(super) type NodeId = usize;

#[derive(Debug)]
struct Node<T> {
    /// `None` at a root.
    parent: Option<NodeId>,
    /// Tokens from the parent to here; empty at a root only.
    edge: Vec<TokenId>,
    /// Tokens from the root to here.
    position: usize,
    /// By the first token of their edges.
    children: HashMap<TokenId, NodeId>,
    item: Option<T>,
}

/// Paths of tokens with items at some of their points.
#[derive(Debug)]
pub(super) struct Paths<T> {
    nodes: Vec<Option<Node<T>>>,
    free: Vec<NodeId>,
    roots: HashMap<Owner, NodeId>,
}

/// How far a list of tokens follows stored paths.
#[derive(Debug)]
pub(super) struct Walk {
    /// Nodes on the way that were reached, from the root on.
    pub nodes: Vec<NodeId>,
    /// Tokens in common with the stored path that has the most of them.
    pub matched: usize,
    /// The token that a stored path has next; `None` where all stored paths end.
    pub next: Option<TokenId>,
}

impl<T> Default for Paths<T> {
    fn default() -> Paths<T> {
        Paths { nodes: Vec::new(), free: Vec::new(), roots: HashMap::new() }
    }
}

impl<T> Paths<T> {
    fn node(&self, id: NodeId) -> &Node<T> {
        self.nodes[id].as_ref().expect("ids are of nodes that exist")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<T> {
        self.nodes[id].as_mut().expect("ids are of nodes that exist")
    }

    fn add(&mut self, node: Node<T>) -> NodeId {
        match self.free.pop() {
            Some(id) => {
                self.nodes[id] = Some(node);
                id
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        }
    }

    /// The item of a node.
    pub fn item(&self, id: NodeId) -> Option<&T> {
        self.node(id).item.as_ref()
    }

    /// The same, to change it.
    pub fn item_mut(&mut self, id: NodeId) -> Option<&mut T> {
        self.node_mut(id).item.as_mut()
    }

    /// Tokens from the root to a node.
    pub fn position(&self, id: NodeId) -> usize {
        self.node(id).position
    }

    /// All nodes with an item.
    pub fn items(&self) -> impl Iterator<Item = (NodeId, &T)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(id, node)| Some((id, node.as_ref()?.item.as_ref()?)))
    }

    /// The nodes above a node, nearest first, down to the root.
    pub fn above(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.node(id).parent, |&above| self.node(above).parent)
    }

    /// Follows `tokens`.
    pub fn walk(&self, owner: Owner, tokens: &[TokenId]) -> Walk {
        let mut walk = Walk { nodes: Vec::new(), matched: 0, next: None };
        let Some(&root) = self.roots.get(&owner) else { return walk };
        let mut at = root;
        loop {
            walk.nodes.push(at);
            let rest = &tokens[walk.matched..];
            let node = self.node(at);
            let Some(&child) = rest.first().and_then(|first| node.children.get(first)) else {
                walk.next = node.children.keys().min().copied();
                return walk;
            };
            let edge = &self.node(child).edge;
            let common = common_prefix(edge, rest);
            walk.matched += common;
            if common < edge.len() {
                walk.next = Some(edge[common]);
                return walk;
            }
            at = child;
        }
    }

    /// The node at the end of `tokens`, made if there is none.
    pub fn node_at(&mut self, owner: Owner, tokens: &[TokenId]) -> NodeId {
        let root = match self.roots.get(&owner) {
            Some(&root) => root,
            None => {
                let (edge, children) = (Vec::new(), HashMap::new());
                let root = self.add(Node { parent: None, edge, position: 0, children, item: None });
                self.roots.insert(owner, root);
                root
            }
        };
        let walk = self.walk(owner, tokens);
        let mut at = walk.nodes.last().copied().unwrap_or(root);
        if walk.matched > self.position(at) {
            at = self.split(at, walk.matched - self.position(at), tokens[self.position(at)]);
        }
        let rest = &tokens[self.position(at)..];
        let Some(&first) = rest.first() else { return at };
        let (parent, edge, children) = (Some(at), rest.to_vec(), HashMap::new());
        let child = self.add(Node { parent, edge, position: tokens.len(), children, item: None });
        self.node_mut(at).children.insert(first, child);
        child
    }

    /// A new node `len` tokens down the edge from `above` that begins with `first`.
    fn split(&mut self, above: NodeId, len: usize, first: TokenId) -> NodeId {
        let below = self.node(above).children[&first];
        let position = self.position(above) + len;
        let rest = self.node_mut(below).edge.split_off(len);
        let edge = std::mem::replace(&mut self.node_mut(below).edge, rest);
        let children = HashMap::from([(self.node(below).edge[0], below)]);
        let middle = self.add(Node { parent: Some(above), edge, position, children, item: None });
        self.node_mut(above).children.insert(first, middle);
        self.node_mut(below).parent = Some(middle);
        middle
    }

    /// Puts an item at a node and returns the one that was there.
    pub fn set(&mut self, id: NodeId, item: T) -> Option<T> {
        self.node_mut(id).item.replace(item)
    }

    /// Takes the item of a node away, and the nodes that nothing needs then.
    pub fn take(&mut self, id: NodeId) -> Option<T> {
        let item = self.node_mut(id).item.take();
        self.tidy(id);
        item
    }

    /// Removes a node without item and children, and those above it that become such; joins the edges of one with a
    /// single child.
    fn tidy(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(parent) = node.parent else {
            if node.item.is_none() && node.children.is_empty() {
                self.roots.retain(|_, root| *root != id);
                self.remove(id);
            }
            return;
        };
        if node.item.is_some() || node.children.len() > 1 {
            return;
        }
        let first = node.edge[0];
        let Some(&child) = node.children.values().next() else {
            self.node_mut(parent).children.remove(&first);
            self.remove(id);
            return self.tidy(parent);
        };
        let mut edge = std::mem::take(&mut self.node_mut(id).edge);
        edge.append(&mut self.node_mut(child).edge);
        let below = self.node_mut(child);
        (below.edge, below.parent) = (edge, Some(parent));
        self.node_mut(parent).children.insert(first, child);
        self.remove(id);
    }

    fn remove(&mut self, id: NodeId) {
        self.nodes[id] = None;
        self.free.push(id);
    }

    /// Whose path a node is on.
    pub fn owner(&self, id: NodeId) -> Option<Owner> {
        let root = self.above(id).last().unwrap_or(id);
        self.roots.iter().find(|(_, other)| **other == root).map(|(owner, _)| *owner)
    }

    /// The nodes of an owner that have an item.
    pub fn items_of(&self, owner: Owner) -> Vec<NodeId> {
        let mut found = Vec::new();
        let mut left: Vec<NodeId> = self.roots.get(&owner).copied().into_iter().collect();
        while let Some(id) = left.pop() {
            let node = self.node(id);
            left.extend(node.children.values());
            found.extend(node.item.is_some().then_some(id));
        }
        found
    }
}

/// How many tokens two lists begin with alike.
pub(super) fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Owner = Owner(1);

    /// Every node has a reason to be there, and positions, edges and parents agree.
    fn check<T>(paths: &Paths<T>) {
        for (id, node) in paths.nodes.iter().enumerate().filter_map(|(id, n)| Some((id, n.as_ref()?))) {
            match node.parent {
                None => assert!(node.edge.is_empty() && node.position == 0),
                Some(parent) => {
                    assert_eq!(paths.node(parent).children[&node.edge[0]], id);
                    assert_eq!(node.position, paths.node(parent).position + node.edge.len());
                    assert!(node.item.is_some() || node.children.len() > 1, "node {id} has no reason");
                }
            }
        }
        let alive = paths.nodes.iter().flatten().count();
        assert_eq!(alive + paths.free.len(), paths.nodes.len());
    }

    #[test]
    fn it_finds_what_a_list_of_lists_finds() {
        // Short tokens from a small alphabet, so that paths share and part everywhere.
        let mut seed = 1u64;
        let mut random = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let mut paths = Paths::default();
        let mut plain: Vec<Vec<TokenId>> = Vec::new();
        for step in 0..4000 {
            let tokens: Vec<TokenId> = (0..random(9)).map(|_| random(3) as TokenId).collect();
            let at = plain.iter().position(|other| *other == tokens);
            if random(3) > 0 {
                let id = paths.node_at(ALICE, &tokens);
                let old = paths.set(id, tokens.clone());
                assert_eq!(old.is_some(), at.is_some(), "step {step}");
                plain.extend(at.is_none().then(|| tokens.clone()));
            } else if let Some(at) = at {
                let id = paths.node_at(ALICE, &tokens);
                assert_eq!(paths.take(id), Some(plain.swap_remove(at)));
            }
            check(&paths);
            let wanted: Vec<TokenId> = (0..random(10)).map(|_| random(3) as TokenId).collect();
            let walk = paths.walk(ALICE, &wanted);
            let longest = plain.iter().map(|other| common_prefix(other, &wanted)).max().unwrap_or(0);
            assert_eq!(walk.matched, longest, "step {step}");
            let found = walk.nodes.iter().filter_map(|&id| paths.item(id)).max_by_key(|t| t.len());
            let best = plain.iter().filter(|other| wanted.starts_with(other)).max_by_key(|t| t.len());
            assert_eq!(found, best, "step {step}");
            assert!(paths.walk(Owner(2), &wanted).nodes.is_empty());
            assert_eq!(paths.items_of(ALICE).len(), plain.len());
        }
        while let Some(id) = paths.items_of(ALICE).pop() {
            paths.take(id);
            check(&paths);
        }
        assert!(paths.roots.is_empty() && paths.nodes.iter().all(Option::is_none));
    }
}
