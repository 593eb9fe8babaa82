/** A list whose items are taken out anywhere in O(1): they are their own links, so an item is in one list at a time. */
export interface Linked<Item> {
  previous: Item | undefined
  next: Item | undefined
  listed: boolean
}

export class LinkedList<Item extends Linked<Item>> {
  first: Item | undefined
  last: Item | undefined
  size = 0

  append(item: Item): void {
    item.listed = true
    item.previous = this.last
    item.next = undefined
    if (this.last === undefined) this.first = item
    else this.last.next = item
    this.last = item
    this.size++
  }

  /** Does nothing when it is not in the list. */
  remove(item: Item): void {
    if (!item.listed) return
    item.listed = false
    if (item.previous === undefined) this.first = item.next
    else item.previous.next = item.next
    if (item.next === undefined) this.last = item.previous
    else item.next.previous = item.previous
    item.previous = undefined
    item.next = undefined
    this.size--
  }
}
